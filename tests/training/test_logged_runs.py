"""Runs with loggers: the same numbers, every epoch once, and no run lost by one of them."""

import csv
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from feedseg import main
from feedseg.runs import loggers
from feedseg.runs.directory import RunDir, read_json
from feedseg.runs.loggers.tensorboard import Logger, _records
from feedseg.training import train
from tests.support import tiny
from tests.support.interruption import interrupted

TINY = str(Path(tiny.__file__))
BOTH = "--config.runtime.loggers=csv,tensorboard"


def run(workdir: Path, *more: str) -> int:
    """Exit code of a run in this process."""
    return main.guarded(main.train, [f"--config={TINY}", f"--workdir={workdir}", *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert run(workdir, BOTH) == 0
    return workdir


def table(workdir: Path) -> list[dict]:
    with (workdir / "metrics.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def events(workdir: Path) -> list[tuple[int, list[str]]]:
    """Steps and tags of all events with values."""
    paths = (workdir / "tensorboard").iterdir()
    found = [Event.FromString(data) for path in paths for data in _records(path.read_bytes())]
    return [(e.step, [value.tag for value in e.summary.value]) for e in found if e.summary.value]


def assert_logged(workdir: Path) -> None:
    """Every epoch once, and the pictures."""
    rows = RunDir(workdir).rows()
    logged = table(workdir)
    speeds = [row.pop("images_per_s") for row in logged]
    assert logged == rows and min(speeds) > 0
    (zero, config), *epochs = events(workdir)
    assert zero == 0 and config[0].startswith("config")
    tags = ["epoch", *list(rows[0])[2:], "images_per_s"]
    assert epochs[: len(rows)] == [(row["step"], tags) for row in rows]
    assert epochs[len(rows) :] == [
        (tiny.STEPS, [name]) for name in ("curves", "confusion", "panel")
    ]


def test_what_is_logged(whole):
    assert_logged(whole)
    logged = read_json(whole / "config.json")["runtime"]["loggers"]
    assert logged == ["csv,tensorboard"]


@pytest.mark.parametrize("after", [5, 11])
def test_a_run_that_was_killed_has_no_epoch_twice(whole, tmp_path, monkeypatch, after):
    """Epochs that are logged but not saved are repeated; a logger may be chosen on the way."""
    more = ("--config.train.save_every_epochs=3",)
    first = "--config.runtime.loggers=csv" if after == 5 else BOTH
    with monkeypatch.context() as patch:
        patch.setattr(train, "check_losses", interrupted(train.check_losses, after))
        assert run(tmp_path, *more, first) == 130
    assert len(table(tmp_path)) == after // tiny.STEPS_PER_EPOCH
    assert run(tmp_path, *more, BOTH) == 0
    assert_logged(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_logger_that_fails_loses_no_run(whole, tmp_path, monkeypatch, capsys):
    def scalars(self, step, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Logger, "scalars", scalars)
    assert run(tmp_path, BOTH) == 0
    said = capsys.readouterr().out
    assert said.count("warning: logger tensorboard is off from now on (OSError: ") == 1
    assert "warning: logger csv" not in said and len(table(tmp_path)) == tiny.EPOCHS
    scores = [read_json(each / "result.json")["metrics"] for each in (whole, tmp_path)]
    assert scores[0] == scores[1]
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("wandb", "runtime.loggers: wandb needs wandb; pip install 'feedseg[wandb]'"),
        ("cvs", "runtime.loggers: 'cvs' is unknown, did you mean 'csv'?"),
    ],
)
def test_what_is_refused_before_the_training(tmp_path, monkeypatch, capsys, names, text):
    monkeypatch.setattr(loggers, "_installed", lambda name: False)
    assert run(tmp_path / "run", f"--config.runtime.loggers={names}") == 2
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_configuration_hash_is_without_them(whole, capsys):
    assert run(whole) == 0, "the same run without loggers"
    assert "is finished" in capsys.readouterr().out
