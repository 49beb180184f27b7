"""`feedseg reproduce` of every published table from its command to its table, in a smoke budget."""

import json
import re

import pytest

from feedseg import cli, main
from feedseg.experiments import published, sweep
from feedseg.training import result
from tests.support import tiny

SMOKE = (
    "data.name=synthetic",
    "data.synthetic_count=9",
    "data.synthetic_size=16",
    "data.synthetic_classes=2",
    "data.crop_size=16",
    "data.dihedral_copies=False",
    "split.scheme=thirds",
    "split.folds=3",
    "train.epochs=1",
    "train.batch_size=2",
)


class InThisProcess:
    """A run, as `subprocess.Popen` starts it; compiling once serves all of them."""

    def __init__(self, command, **_):
        assert command[1:3] == ["-m", "feedseg.main"]
        self._code = main.guarded(main.train, command[3:])

    def poll(self):
        return self._code


NARROW, LEVELS = ("model.filters=(2,4)",), ("model.filters=(2,4,4)",)
ROWS = {  # what differs between them is how they are planned, not what is compiled
    "fbu-t1": ("unet_fb", NARROW),
    "fbu-t2": ("unet_fb", NARROW),
    "fbu-t3": ("feedback_unet_lstm_b", LEVELS),
    "fbu-t4": ("feedback_unet_lstm_b", LEVELS),
    "fba-t1": ("unet_fa", NARROW),
    "fba-t2": ("feedback_conv1x1", NARROW),
    "fba-t3": ("feedback_attention_self", NARROW),
    "fba-t4": ("feedback_attention_self_first", NARROW),
    "aep-t1": ("unetpp", NARROW),
    "aep-t2": ("unet_aep_baseline", ()),
    "aep-t3": ("pre_median_3", ()),
    "aep-t4": ("unet_aep_baseline", ()),
    "aep-t5": ("aep_awel", ()),
    "aep-t6": ("aep_awel", ()),
    "aep-fig12": ("aep_x1", ()),
    "blood": ("m1", (*NARROW, "data.synthetic_classes=3")),
}


LONG = ("aep-fig12", "aep-t2", "aep-t3", "aep-t5", "aep-t6", "fba-t2", "fba-t3", "fbu-t3", "fbu-t4")
EACH = [
    pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in published.names()
]


@pytest.mark.parametrize("name", EACH)
def test_every_table_from_its_command_to_its_files(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr(sweep.subprocess, "Popen", InThisProcess)
    monkeypatch.setattr(sweep, "_POLL_S", 0)
    monkeypatch.setattr(result, "draw", lambda *_: None)
    row, narrow = ROWS[name]
    first = published.table(name).rows[0].scores[0]
    data = "-".join(filter(None, (first.dataset, first.degrade)))
    command = ["reproduce", name, "--rows", row, "--data", data, "--folds", "0"]
    command += ["--root", str(tmp_path)]
    if name.startswith("fba"):
        command += ["--seeds", "0"]
    assert cli.run([*command, *(f"--config.{change}" for change in (*SMOKE, *narrow))]) == 0
    text = (tmp_path / f"{name}.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert (
        f"rows {row} only; data {data} only; folds 0 only" in text
        and "changed: train.epochs=1" in text
    )
    record = json.loads((tmp_path / f"{name}.json").read_text())
    for each in record["rows"]:  # one, or one for each measure
        (ours,) = each["ours"].get("mean") or each["ours"]["accuracy"]
        assert 0 <= ours <= 100
    assert len(record["runs"]) == 1
    assert len(re.findall(r"\| 1 of \d+ \|", text)) == len(record["rows"])
