"""A run that ends before its last epoch: by patience, by a callback, alone and beside others."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from feedseg.runs.checkpoint import read_tree, saved_steps
from feedseg.runs.directory import RunDir, read_json
from feedseg.runtime import mesh
from feedseg.runtime.logs import Log
from feedseg.training import batched, early_stop, result, train, validate
from tests.support import tiny

EPOCHS = 6


@pytest.fixture(autouse=True)
def one_device_and_no_figures(monkeypatch):
    monkeypatch.setattr(result, "draw", lambda *_: None)
    monkeypatch.setattr(batched, "devices", lambda: [mesh.mesh_of(jax.devices()[:1])])


def spec(workdir: Path, patience: int = 0, callbacks=(), **more) -> train.RunSpec:
    config = tiny.get_config(train__epochs=EPOCHS, train__patience=patience, **more)
    return train.RunSpec(config, workdir, Log(), callbacks)


def run(workdir: Path, *arguments, **more) -> dict:
    (outcome,) = train.run_together([spec(workdir, *arguments, **more)])
    assert isinstance(outcome, dict), outcome
    return outcome


@pytest.fixture
def scores(monkeypatch):
    """Sets the validation mean IoU of the epochs of every run."""
    real = validate.epoch_row

    def set_to(*values: float) -> None:
        def row(setup, state, step):
            found = real(setup, state, step)
            return found | {"val/miou": values[found["epoch"] - 1]}

        monkeypatch.setattr(validate, "epoch_row", row)

    yield set_to


def epochs(workdir: Path) -> list[int]:
    return [row["epoch"] for row in RunDir(workdir).rows()]


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ((0.0, 0.1, 0.1, 0.05, 0.2, 0.2), [0, 0, 1, 2, 0, 1]),  # an equal score is not better
        ((float("nan"), 0.1, float("nan"), 0.2), [1, 0, 1, 0]),
    ],
)
def test_epochs_without_a_better_validation(values, counts):
    meta, found = {"best_miou": -1.0, "waited": 0}, []
    for value in values:
        meta["waited"] = early_stop.waited(meta, value)
        meta["best_miou"] = np.fmax(meta["best_miou"], value)
        found.append(meta["waited"])
    assert found == counts


def test_reasons():
    row = {"epoch": 3}
    assert early_stop.reason(row, 9, 0, ()) == ""
    assert early_stop.reason(row, 1, 2, ()) == ""
    assert early_stop.reason(row, 1, 1, ()) == "no better validation for 1 epoch"
    assert early_stop.reason(row, 2, 2, ()) == "no better validation for 2 epochs"
    rows = []
    assert early_stop.reason(row, 0, 2, [rows.append, lambda each: each["epoch"] == 2]) == ""
    asked = early_stop.reason(row, 0, 2, [lambda _: True, rows.append])
    assert asked == "a callback asked for it" and rows == [row, row], "all are called"


def test_patience(tmp_path, scores, capsys):
    scores(0.1, 0.3, 0.2, 0.3, 0.4, 0.5)
    ended = run(tmp_path, 2)
    stopped = {"epoch": 4, "reason": "no better validation for 2 epochs"}
    assert ended["stopped"] == stopped and read_json(tmp_path / "result.json")["stopped"] == stopped
    assert ended["complete"] and ended["best"]["epoch"] == 4, "the last of the highest"
    assert epochs(tmp_path) == [1, 2, 3, 4] and saved_steps(tmp_path / "checkpoints")[-1] == 16
    said = "stopped early at epoch 4: no better validation for 2 epochs"
    assert capsys.readouterr().out.count(said) == 1
    assert said in (tmp_path / "log.txt").read_text()
    run(tmp_path, 2)
    assert "is finished" in capsys.readouterr().out and epochs(tmp_path) == [1, 2, 3, 4]


def test_without_patience_all_epochs_are_trained(tmp_path, scores):
    scores(0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
    ended = run(tmp_path)
    assert len(epochs(tmp_path)) == EPOCHS and "stopped" not in ended
    assert read_json(tmp_path / "config.json")["train"]["patience"] == 0


def test_the_last_epoch_is_no_early_end(tmp_path, scores):
    scores(0.1, 0.2, 0.3, 0.4, 0.4, 0.4)
    assert "stopped" not in run(tmp_path, 2)


class Killed(BaseException):
    pass


def killed(*_):
    raise Killed


@pytest.mark.parametrize("every", [1, 5])
def test_killed_on_the_way_it_stops_at_the_same_epoch(tmp_path, scores, monkeypatch, every):
    """The epochs that it has waited are kept with its state, and counted anew where it repeats."""
    scores(0.1, 0.3, 0.2, 0.25, 0.3, 0.5)
    more = {"train__save_every_epochs": every}
    run(tmp_path / "whole", 3, **more)
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_early", killing_at(train.stop_early, 4))
        with pytest.raises(Killed):
            run(tmp_path / "killed", 3, **more)
    ended = run(tmp_path / "killed", 3, **more)
    assert ended["stopped"]["epoch"] == 5
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def killing_at(real, epoch: int):
    def stop_early(run, row, last):
        if row["epoch"] == epoch:
            raise Killed
        real(run, row, last)

    return stop_early


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for part in ("checkpoints", "best"):
        assert saved_steps(one / part)[-1] == saved_steps(other / part)[-1]
        trees = [jax.tree.leaves(read_tree(each / part)[0]) for each in (one, other)]
        for a, b in zip(*trees, strict=True):
            np.testing.assert_array_equal(a, b)


def test_killed_before_its_result_it_trains_no_further(tmp_path, scores, monkeypatch):
    scores(0.3, 0.2, 0.4, 0.5, 0.6, 0.7)
    with monkeypatch.context() as patch:
        patch.setattr(train, "finish", killed)
        with pytest.raises(Killed):
            run(tmp_path, 1)
    assert not (tmp_path / "result.json").exists()
    monkeypatch.setattr(batched.BatchedStep, "dispatch", killed)
    assert run(tmp_path, 1)["stopped"]["epoch"] == 2


def test_more_epochs_after_an_early_end_begin_with_new_patience(tmp_path, scores):
    scores(0.3, 0.2, 0.1, 0.1, 0.5, 0.4, 0.3)
    assert run(tmp_path, 2)["stopped"]["epoch"] == 3
    longer = spec(tmp_path, 2)
    longer.config.train.epochs = 7
    (ended,) = train.run_together([longer])
    assert "stopped" not in ended, "epoch 4 was the first of the new patience"
    assert len(epochs(tmp_path)) == 7 and ended["went_on_from"] == [6]
    assert read_json(tmp_path / "result-of-6-epochs.json")["stopped"]["epoch"] == 3


# Beside others --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", batched.FORMS)
def test_one_that_stops_leaves_the_bits_of_the_others(tmp_path, monkeypatch, form):
    """The same program trains on; what it does to the one that has stopped is not kept."""
    programs = []
    real = batched.Program.__init__
    monkeypatch.setattr(
        batched.Program, "__init__", lambda *each: (programs.append(1), real(*each))[0]
    )

    def group(root: Path, stop: int) -> list:
        stopping = [lambda row: row["epoch"] == stop]
        more = {"runtime__together": form}
        return [
            spec(root / "a", 0, stopping, **more),
            spec(root / "b", 0, (), seed=1, split__fold=1, **more),
        ]

    whole = train.run_together(group(tmp_path / "whole", 0))
    first, second = train.run_together(group(tmp_path, 2))
    assert len(programs) == 2
    assert first["stopped"] == {"epoch": 2, "reason": "a callback asked for it"}
    assert epochs(tmp_path / "a") == [1, 2] and saved_steps(tmp_path / "a/checkpoints") == [4, 8]
    assert "stopped" not in second and len(epochs(tmp_path / "b")) == EPOCHS
    assert_same_run(tmp_path / "whole" / "b", tmp_path / "b")
    rows = [RunDir(root / "a").rows() for root in (tmp_path / "whole", tmp_path)]
    assert rows[0][:2] == rows[1]
    assert whole[1]["metrics"] == second["metrics"]


def test_its_result_is_written_before_the_others_go_on(tmp_path, monkeypatch):
    found = []

    def look(row):
        found.append((row["epoch"], (tmp_path / "a" / "result.json").exists()))

    specs = [spec(tmp_path / "a", 0, [lambda row: True]), spec(tmp_path / "b", 0, [look], seed=1)]
    train.run_together(specs)
    assert found == [(1, False)] + [(epoch, True) for epoch in range(2, EPOCHS + 1)]


# Callbacks ------------------------------------------------------------------------------------


def test_callbacks_get_the_rows_and_may_end_the_run(tmp_path):
    rows = []
    ended = train.run(
        tiny.get_config(),
        tmp_path / "run",
        Log(),
        callbacks=[lambda row: rows.append(row), lambda row: row["epoch"] == 2],
    )
    assert ended["stopped"] == {"epoch": 2, "reason": "a callback asked for it"}
    speeds = [row.pop("images_per_s") for row in rows]
    assert rows == RunDir(tmp_path / "run").rows() and min(speeds) > 0


def test_what_a_callback_raises_is_the_callers_and_the_run_goes_on_later(tmp_path):
    def broken(row):
        if row["epoch"] == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train.run(tiny.get_config(), tmp_path / "run", Log(), callbacks=[broken])
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    ended = train.run(tiny.get_config(), tmp_path / "copy", Log())
    assert epochs(tmp_path / "copy") == [1, 2, 3] and "stopped" not in ended
