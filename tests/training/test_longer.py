"""A finished run whose command is given with more epochs trains on; nothing of it is lost."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from feedseg import main
from feedseg.inference.trained import load_run
from feedseg.runs import config as configs
from feedseg.runs import directory as directories
from feedseg.runs.checkpoint import read_tree, saved_steps
from feedseg.runs.directory import RunDir, read_json
from feedseg.runtime import files
from feedseg.training import result, train, validate
from tests.support import tiny
from tests.support.interruption import interrupted

TINY = str(Path(tiny.__file__))
COSINE = "--config.optimizer.schedule=cosine"
KEPT = "result-of-2-epochs.json"


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(result, "draw", lambda *_: None)


def run(workdir: Path, epochs: int, *more: str) -> int:
    """Exit code of a run in this process."""
    epochs = f"--config.train.epochs={epochs}"
    arguments = [f"--config={TINY}", f"--workdir={workdir}", COSINE, epochs, *more]
    return main.guarded(main.train, arguments)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A finished run of 2 epochs. Tests only read it."""
    workdir = tmp_path_factory.mktemp("short") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "draw", lambda *_: None)
        assert run(workdir, 2) == 0
    return workdir


@pytest.fixture
def copied(short, tmp_path) -> Path:
    return Path(shutil.copytree(short, tmp_path / "run"))


def arrays(folder: Path) -> list[np.ndarray]:
    return jax.tree.leaves(read_tree(folder)[0])


def test_more_epochs_train_on(short, copied, capsys):
    assert run(copied, 4) == 0
    said = capsys.readouterr().out
    assert "going on from 2 to 4 epochs: the learning rate is that of the longer run, 0.005" in said
    rows, before = RunDir(copied).rows(), RunDir(short).rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] and rows[:2] == before
    assert rows[2]["lr"] == pytest.approx(0.005 * (1 + np.cos(np.pi * 11 / 16))), "of 16 steps"
    assert (copied / KEPT).read_bytes() == (short / "result.json").read_bytes()

    ended = read_json(copied / "result.json")
    best = max(rows, key=lambda row: (row["val/miou"], row["epoch"]))
    assert ended["best"]["epoch"] == best["epoch"] and ended["went_on_from"] == [2]
    assert ended["config_hash"] != read_json(short / "result.json")["config_hash"]
    assert "went_on_from" not in read_json(short / "result.json")
    assert read_json(copied / "config.json")["train"]["epochs"] == 4


def test_it_goes_on_more_than_once_and_is_finished_then(copied, capsys):
    assert run(copied, 3) == 0 and run(copied, 4) == 0
    assert read_json(copied / "result.json")["went_on_from"] == [2, 3]
    kept = read_json(copied / "result-of-3-epochs.json")
    assert kept["went_on_from"] == [2]
    capsys.readouterr()
    assert run(copied, 4) == 0
    assert "is finished" in capsys.readouterr().out


def test_the_best_of_the_shorter_run_stays_the_best(copied, monkeypatch):
    """No later epoch is better: its checkpoint is the run's own from then on."""
    real = validate.epoch_row
    worse = {"val/miou": 0.0}
    monkeypatch.setattr(validate, "epoch_row", lambda *each: real(*each) | worse)
    before = arrays(copied / "best")
    assert run(copied, 3) == 0
    assert read_json(copied / "result.json")["best"]["epoch"] <= 2
    (copied / KEPT).unlink()
    assert load_run(copied).channels == 1, "without the kept result too"
    for a, b in zip(before, arrays(copied / "best"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("point", ["kept", "config", "removed"])
def test_killed_between_any_two_files(short, copied, monkeypatch, point):
    """The same command goes on, and the result of the shorter run is somewhere at any time."""

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if point == "kept":  # the copy is there, the configuration still the old one
            patch.setattr(directories.files, "write_sealed", killed)
        elif point == "config":  # the new configuration beside the old result
            patch.setattr(Path, "unlink", killed)
        else:
            patch.setattr(train, "restore", killed)
        with pytest.raises(Killed):
            run(copied, 3)
    assert (copied / KEPT).read_bytes() == (short / "result.json").read_bytes()
    assert (copied / "result.json").exists() == (point != "removed")
    assert load_run(copied).channels == 1
    finished = RunDir(copied).finished()
    assert bool(finished) == (point == "kept")
    assert run(copied, 3) == 0
    assert read_json(copied / "result.json")["went_on_from"] == [2]
    assert (copied / KEPT).read_bytes() == (short / "result.json").read_bytes()


@pytest.mark.parametrize(
    ("epochs", "more", "named"),
    [
        (1, (), "train.epochs: 2 -> 1"),
        (3, ("--config.seed=1",), "seed: 0 -> 1; train.epochs: 2 -> 3"),
        (2, ("--config.train.patience=1",), "train.patience: None -> 1"),
        (3, ("--config.train.batch_size=4",), "train.batch_size: 2 -> 4; train.epochs: 2 -> 3"),
    ],
)
def test_any_other_change_is_refused(short, capsys, epochs, more, named):
    assert run(short, epochs, *more) == 2
    said = capsys.readouterr().err
    assert f"holds a run with another configuration ({named}); choose" in said
    assert said.count("\n") == 1


def test_a_run_of_an_earlier_version_goes_on(copied):
    """Neither its configuration nor its checkpoints knew of patience."""
    config = read_json(copied / "config.json")
    del config["train"]["patience"], config["runtime"]["loggers"]
    files.write_sealed(copied / "config.json", config)
    before = configs.config_hash(config)
    assert before == read_json(copied / "result.json")["config_hash"]
    assert run(copied, 3) == 0
    assert read_json(copied / "result.json")["went_on_from"] == [2]


def test_a_run_that_is_not_finished_is_refused(copied, capsys):
    (copied / "result.json").unlink()
    assert run(copied, 3) == 2
    assert "train.epochs: 2 -> 3" in capsys.readouterr().err
    assert json.loads((copied / "config.json").read_text())["train"]["epochs"] == 2


def test_changed_data_are_refused_before_anything_is_written(copied, capsys):
    facts = read_json(copied / "data.json")
    files.write_sealed(copied / "data.json", facts | {"fingerprint": "other"})
    changed = read_json(copied / "result.json") | {"data_hash": "other"}
    files.write_sealed(copied / "result.json", changed)
    assert run(copied, 3) == 2
    assert "have changed since this run began" in capsys.readouterr().err
    assert not (copied / KEPT).exists()
    assert read_json(copied / "config.json")["train"]["epochs"] == 2


def test_stopped_on_its_way_it_ends_in_the_same_bits(copied, tmp_path, monkeypatch):
    other = shutil.copytree(copied, tmp_path / "other")
    assert run(copied, 4) == 0
    with monkeypatch.context() as patch:
        patch.setattr(train, "check_losses", interrupted(train.check_losses, after=6))
        assert run(other, 4) == 130
    assert len(RunDir(other).rows()) == 3 and not (other / "result.json").exists()
    assert run(other, 4) == 0
    assert (copied / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert saved_steps(copied / "checkpoints") == saved_steps(other / "checkpoints")
    for folder in ("checkpoints", "best"):
        for a, b in zip(arrays(copied / folder), arrays(other / folder), strict=True):
            np.testing.assert_array_equal(a, b)
    assert read_json(other / "result.json")["went_on_from"] == [2]
