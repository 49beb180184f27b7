"""The published tables: their numbers, and that every row has runs whose configurations load."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from configs import tables
from feedseg.experiments import published
from feedseg.runs import config as configs
from feedseg.runtime.errors import UserError
from tests.support import tiny

ALL = [published.table(name) for name in published.names()]
SOURCE = tiny.ROOT.parent / "shared" / "papers" / "tables.json"


def test_there_are_all_tables():
    assert [t.key for t in ALL] == [
        *(f"aep-{n}" for n in ("fig12", "t1", "t2", "t3", "t4", "t5", "t6")),
        "blood",
        *(f"fba-t{n}" for n in range(1, 5)),
        *(f"fbu-t{n}" for n in range(1, 5)),
    ]


def test_a_wrong_name_lists_them():
    with pytest.raises(
        UserError, match=r"'fbu-5', did you mean 'fbu-t\d'\? There are: aep-fig12, aep"
    ):
        published.table("fbu-5")
    assert published.table("FBU-T1").key == "fbu-t1"


@pytest.mark.parametrize("table", ALL, ids=lambda t: t.key)
def test_averages_are_those_of_the_classes_or_called_misprints(table):
    for row in table.rows:
        for scores in row.scores:
            if "mean" not in scores.values:
                continue
            mean = np.mean([m for name, (m, _) in scores.values.items() if name != "mean"])
            wrong = abs(mean - scores.values["mean"][0]) > 1.01 * 10**-table.decimals
            assert wrong == bool(scores.misprint), (row.key, scores)


def test_some_numbers():
    first = published.table("fbu-t1").rows[0]
    assert (first.method, first.scores[0].values["synapse"]) == ("U-Net", (40.9, None))
    rows = {row.key: row for row in published.table("aep-t4").rows}
    noise = rows["aep_awel"].scores[0]
    assert (noise.degrade, noise.values["mean"]) == ("noise", (78.0, 1.02))


@pytest.mark.skipif(not SOURCE.exists(), reason="the parsed papers are not here")
def test_numbers_are_those_of_the_papers():
    for entry in json.loads(SOURCE.read_text())["tables"]:
        ours = published.table(entry["id"])
        for theirs, row in zip(entry["rows"], ours.rows, strict=True):
            assert theirs["method_id"] == row.key
            for a, b in zip(theirs["results"], row.scores, strict=True):
                found = [(v["mean"], v["std"]) for v in a["values"].values()]
                assert found == list(b.values.values())


def every_run():
    """One run of every method on every data set of every paper's tables."""
    runs = {}
    for table in ALL:
        for row in table.rows:
            for scores in row.scores:
                key = (row.key, table.key[:3], scores.dataset, scores.degrade)
                runs.setdefault(key, table)
    return runs


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_every_row_has_a_configuration(recipe, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    hashes = {}
    for (method, _, dataset, degrade), table in every_run().items():
        folds, seeds = table.folds[dataset], table.seeds
        text = tables.config_string(
            method, table.arguments, dataset, degrade, folds - 1, seeds - 1, recipe
        )
        path, _, arg = text.partition(":")
        module = importlib.import_module(f"configs.{Path(path).stem}")
        config = module.get_config(arg)
        assert config.split.fold == folds - 1 < max(1, config.split.folds) or dataset == "wbc"
        assert (config.data.name, config.seed) == (dataset, seeds - 1)
        changed = [*tables.METHODS[method].overrides, tables.METHODS[method].output]
        same = json.dumps([configs.config_hash(configs.to_plain(config)), changed])
        assert hashes.setdefault(same, (method, dataset, degrade)) == (method, dataset, degrade)


def test_protocols_of_the_papers(monkeypatch):
    from configs import baseline, feedback_unet

    arg = tables.config_string("unet_fb", "split=sections", "mouse_liver", "", 7, 0, "paper").split(
        ":"
    )[1]
    config = baseline.get_config(arg)
    assert (config.split.folds, config.split.counts) == (8, (35, 5, 10))
    assert config.data.dihedral_copies and config.train.epochs == 1500
    arg = tables.config_string("unetpp", "", "mouse_liver", "", 4, 0, "paper").split(":")[1]
    config = baseline.get_config(arg)
    assert (config.split.folds, config.train.epochs, config.train.batch_size) == (5, 300, 16)
    assert not config.data.dihedral_copies
    arg = tables.config_string("feedback_unet_lstm_a", "split=sections", "sstem", "", 0, 0, "paper")
    config = feedback_unet.get_config(arg.split(":")[1])
    assert (config.model.layout, config.split.scheme) == ("a", "rotate")
