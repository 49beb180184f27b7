"""Several runs as one program: each is the run that it would be alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from feedseg import main
from feedseg.experiments import trials
from feedseg.runs import config as configs
from feedseg.runs.checkpoint import read_tree
from feedseg.runs.directory import RunDir
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime import mesh
from feedseg.runtime.errors import Diverged, InUse, Stopped, UserError, guarded
from feedseg.runtime.logs import Log
from feedseg.training import batched, result, stack, train
from feedseg.training.setup import set_up
from tests.support import tiny

TINY = str(Path(tiny.__file__))
SMALL = (
    *("optimizer.name=sgd", "optimizer.learning_rate=0.05"),  # a rounding error stays one
    *("train.epochs=2", "train.ema_decay=0"),
)


@pytest.fixture(autouse=True)
def one_device_and_no_figures(monkeypatch):
    monkeypatch.setattr(result, "draw", lambda *_: None)
    monkeypatch.setattr(batched, "devices", lambda: [mesh.mesh_of(jax.devices()[:1])])


def trial(workdir: Path, *changes: str) -> trials.Trial:
    return trials.Trial(TINY, (*SMALL, *changes), workdir)


def order(workdir: Path, *changes: str) -> train.RunSpec:
    config, _ = configs.parse_flags(trial(workdir, *changes).arguments())
    return train.RunSpec(config, workdir, Log())


RUNS = {"a": (), "b": ("seed=1", "split.fold=1"), "c": ("seed=2", "model.filters=(3,)")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The runs one by one."""
    root = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "draw", lambda *_: None)
        for name, changes in RUNS.items():
            assert guarded(main.train, trial(root / name, *changes).arguments()) == 0
    return root


def orders(root: Path, *more: str) -> list[train.RunSpec]:
    return [order(root / name, *changes, *more) for name, changes in RUNS.items()]


def leaves(folder: Path) -> list[np.ndarray]:
    return jax.tree.leaves(read_tree(folder)[0])


def assert_equal_runs(one: Path, other: Path) -> None:
    """Arrays of both checkpoints, losses and scores: equal to rounding."""
    for part in ("checkpoints", "best"):
        for a, b in zip(leaves(one / part), leaves(other / part), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(
            [v or 0 for v in a.values()], [v or 0 for v in b.values()], atol=5e-3
        )
    first, second = (json.loads((run / "result.json").read_text()) for run in (one, other))
    for key in ("config_hash", "data_hash", "seed", "counts"):
        assert first[key] == second[key]
    assert first["best"]["epoch"] == second["best"]["epoch"]
    assert first["metrics"]["final"]["miou"] == pytest.approx(
        second["metrics"]["final"]["miou"], abs=5e-3
    )


@pytest.mark.parametrize("form", batched.FORMS)
def test_runs_of_one_program_are_those_made_alone(form, alone, tmp_path, monkeypatch):
    """Two of other seeds and folds; one of another network is a program of its own."""
    programs = compiled(monkeypatch)
    results = train.run_together(orders(tmp_path, f"runtime.together={form}"))
    assert programs == [2, 1]
    assert [result["complete"] for result in results] == [True] * 3
    for name in RUNS:
        assert_equal_runs(alone / name, tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        (("seed=1", "split.fold=2", "augment.dihedral=false"), False),
        (("seed=1", "split.fold=2"), True),
        (("data.synthetic_seed=1",), True),
        (("data.synthetic_count=15",), False),  # another size of the training split
        (("optimizer.learning_rate=0.01",), False),
        (("train.epochs=3",), False),
    ],
)
def test_what_is_one_program(changes, same, tmp_path):
    kinds = []
    for name, own in (("a", ()), ("b", changes)):
        one = order(tmp_path / name, *own)
        kinds.append(batched.kind(*set_up_alone(one)))
    assert (kinds[0] == kinds[1]) == same


def set_up_alone(one: train.RunSpec):
    one.workdir.mkdir()
    return set_up(one.config, RunDir(one.workdir), one.log)


def compiled(monkeypatch) -> list[int]:
    """Counts the programs that are compiled, by their runs' number."""
    found = []
    real = batched.Program.__init__

    def counted(self, setups, states):
        found.append(len(setups))
        real(self, setups, states)

    monkeypatch.setattr(batched.Program, "__init__", counted)
    return found


def test_a_stopped_program_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Stopped within an epoch; each run has its state."""
    wanted = [order(tmp_path / "whole" / name, *RUNS[name]) for name in "ab"]
    train.run_together(wanted)
    programs = compiled(monkeypatch)
    with monkeypatch.context() as patch:
        interrupt(patch, before=3)
        with pytest.raises(Stopped, match="SIGTERM at step 3"):
            train.run_together([order(tmp_path / name, *RUNS[name]) for name in "ab"])
    train.run_together([order(tmp_path / name, *RUNS[name]) for name in "ab"])
    assert programs == [2, 2]
    for name in "ab":
        one, other = tmp_path / "whole" / name, tmp_path / name
        assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
        for part in ("checkpoints", "best"):
            for a, b in zip(leaves(one / part), leaves(other / part), strict=True):
                np.testing.assert_array_equal(a, b)


def interrupt(patch, before: int) -> None:
    """A SIGTERM to this process when that step has begun."""
    real, calls = batched.Program.dispatch, []

    def dispatch(self):
        calls.append(1)
        if len(calls) == before:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self)

    patch.setattr(batched.Program, "dispatch", dispatch)


def test_a_run_that_fails_leaves_the_others_alone(alone, tmp_path, monkeypatch):
    """One diverges, one is in use, one is finished, one has no data: the fifth is as alone."""
    real, poisoned = batched.Program.dispatch, []

    def dispatch(self):
        real(self)
        if self._count == 2 and not poisoned:  # the second run's parameters, once
            poisoned.append(1)
            first, second = self._states
            params = jax.tree.map(lambda x: x * np.nan, second.params)
            self._states = first, second.replace(params=params)

    monkeypatch.setattr(batched.Program, "dispatch", dispatch)
    shutil.copytree(alone / "c", tmp_path / "c")
    four = [order(tmp_path / name, *RUNS.get(name, ())) for name in ("a", "b", "c", "busy")]
    no_data = order(tmp_path / "none", "data.name=sstem", "data_dir=/nowhere")
    with WorkdirLock(tmp_path / "busy"):
        outcomes = train.run_together([*four, no_data])
    assert [type(each) for each in outcomes] == [dict, Diverged, dict, InUse, UserError]
    assert "at step 1" in str(outcomes[1])
    assert_equal_runs(alone / "a", tmp_path / "a")
    assert not (tmp_path / "b" / "result.json").exists()


SPREAD = """
import sys
from feedseg.runtime.errors import guarded
from feedseg.training import batched, stack
real = batched.Program.__init__
def shown(self, setups, states):
    print("program", [str(each.mesh.devices.flat[0]) for each in setups], flush=True)
    real(self, setups, states)
batched.Program.__init__ = shown
sys.exit(guarded(stack.stack, sys.argv[1:]))
"""


@pytest.mark.long
def test_runs_spread_over_devices_by_the_command(alone, tmp_path):
    """Three runs on two devices; what the process says names the run."""
    task = tuple(trial(tmp_path / name, *RUNS[name]) for name in "ab")
    task += (trial(tmp_path / "d", "seed=3"),)
    command = trials.command(task)
    assert command[1:3] == ["-m", "feedseg.training.stack"]
    two = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
    environment = {**os.environ, "XLA_FLAGS": two}
    done = subprocess.run(
        [sys.executable, "-c", SPREAD, *command[3:]],
        **dict(cwd=tiny.ROOT, env=environment, capture_output=True, text=True, timeout=600),
    )
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("program")]
    assert shown == ["program ['cpu:0', 'cpu:0']", "program ['cpu:1']"]
    assert "\nd: epoch 2/2" in done.stdout
    for name in "ab":
        assert_equal_runs(alone / name, tmp_path / name)


def test_wrong_commands_are_refused(tmp_path):
    for text in ("{", '"a"', "[1]"):
        with pytest.raises(UserError, match="as a JSON list of strings"):
            stack.stack([text])
    with pytest.raises(UserError, match="needs its --workdir"):
        stack.stack([json.dumps([f"--config={TINY}"])])


def test_a_failed_run_gives_its_exit_code(alone, tmp_path, capsys):
    shutil.copytree(alone / "a", tmp_path / "a")
    wrong = trial(tmp_path / "b", "data.name=sstem", "data_dir=/nowhere")
    with WorkdirLock(tmp_path / "busy"):
        busy, done = trial(tmp_path / "busy"), trial(tmp_path / "a")
        runs = trials.command((busy, done))[3:]
        assert guarded(stack.stack, runs) == 69
        runs = trials.command((busy, wrong, done))[3:]
        assert guarded(stack.stack, runs) == 2
    assert f"feedseg: {tmp_path / 'busy'}: " in capsys.readouterr().err
