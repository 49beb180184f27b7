"""Lists of runs: what is finished, what is made, what is set aside, what fails."""

import shutil
import signal
from pathlib import Path

import pytest

from feedseg import main
from feedseg.experiments import sweep, trials
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime import file_lock
from feedseg.runtime.errors import InUse, Stopped, UserError
from tests.support import run_files, tiny

TINY = str(Path(tiny.__file__))
SMALL = ("train.epochs=1", "data.synthetic_count=6")


def trial(folder: Path, *changes: str) -> trials.Trial:
    return trials.Trial(TINY, (*SMALL, *changes), folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("sweep") / "run"
    assert main.guarded(main.train, trial(folder).arguments()) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def state(one: trials.Trial) -> str:
    return sweep.state(one, sweep.Fingerprints())


def test_states(run, tmp_path):
    assert state(trial(run)) == "done"
    assert state(trial(tmp_path / "new")) == "open"
    assert state(trial(run, "seed=1")) == "stale"
    run_files.edit(run / "result.json", data_hash="other")
    assert state(trial(run)) == "stale"
    run_files.edit(run / "result.json", complete=False)
    assert state(trial(run)) == "broken"
    (run / "result.json").write_text("{")
    assert state(trial(run)) == "broken"
    (run / "result.json").unlink()
    assert state(trial(run)) == "open"  # to be continued
    (run / "config.json").write_text("")
    assert state(trial(run)) == "broken"


def test_wrong_configurations_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="unknown key 'epohcs'"):
        sweep.run_all([(trial(tmp_path / "a", "train.epohcs=1"),)], 1, print)


def test_what_is_set_aside_keeps_its_files(run):
    first = sweep.set_aside(run)
    assert first.name == "run.old1" and (first / "result.json").exists()
    run.mkdir()
    assert sweep.set_aside(run).name == "run.old2"


def test_what_is_in_use_is_not_set_aside(run):
    with WorkdirLock(run), pytest.raises(InUse):
        sweep.set_aside(run)
    assert run.exists()


def test_a_stopped_sweep_stops_its_runs_and_goes_on_later(tmp_path, monkeypatch):
    stopped = []

    class Process:
        def __init__(self, *_, **__):
            signal.raise_signal(signal.SIGTERM)

        def poll(self):
            return None

        def terminate(self):
            stopped.append(self)

        def wait(self):
            return 75

    monkeypatch.setattr(sweep.subprocess, "Popen", Process)
    with pytest.raises(Stopped, match="SIGTERM: 0 of 2 runs are done; the same command continues"):
        sweep.run_all([(trial(tmp_path / name),) for name in "ab"], 1, print)
    assert len(stopped) == 1


def test_missing_runs_are_made_and_finished_ones_left_alone(run, tmp_path):
    """Two at once: one is there, one is stale, one is new, one cannot work."""
    said = []
    stale = shutil.copytree(run, tmp_path / "stale")
    run_files.edit(stale / "result.json", config_hash="other")
    before = (run / "result.json").stat().st_mtime_ns
    wrong = trial(tmp_path / "wrong", "data.name=synthetik")
    runs = [trial(run), trial(stale), trial(tmp_path / "new", "seed=1"), wrong]
    failures = sweep.run_all([(one,) for one in runs], 2, said.append)
    assert (run / "result.json").stat().st_mtime_ns == before
    assert (tmp_path / "stale.old1" / "result.json").exists()
    assert [state(one) for one in runs[:3]] == ["done"] * 3
    assert [(f.trial, f.code) for f in failures] == [(wrong, 2)]
    assert "did you mean 'synthetic'" in failures[0].message
    assert any("stale is stale: set aside as stale.old1" in text for text in said)
    assert "3 of 4 runs done, 1 failed" in said[-1]


def test_what_killed_runs_left_is_removed(run):
    (run / ".curves.png.12345-0a1b2c3d.part").touch()
    held = run / ".panel.png.12345-0a1b2c3d.part"
    with held.open("w") as stream:
        file_lock.take(stream.fileno())
        assert sweep.missing([(trial(run),)], print, touch=False) == [()]
        assert len([*run.glob(".*.part")]) == 2
        assert sweep.missing([(trial(run),)], print) == [()]
        assert [*run.glob(".*.part")] == [held]
    assert main.guarded(main.train, trial(run).arguments()) == 0
    assert not [*run.glob(".*.part")]


def test_a_directory_in_use_is_waited_for(run, tmp_path, monkeypatch):
    """Another sweep has it; when that one has finished, nothing is left to do here."""
    monkeypatch.setattr(sweep, "_BUSY_S", 0.1)
    folder = tmp_path / "shared"
    folder.mkdir()
    held = WorkdirLock(folder)
    tried = []

    def popen(arguments, **options):
        tried.append(arguments)
        if len(tried) == 2:
            held.release()
            shutil.copytree(run, folder, dirs_exist_ok=True)
        return real(arguments, **options)

    real = sweep.subprocess.Popen
    monkeypatch.setattr(sweep.subprocess, "Popen", popen)
    assert sweep.run_all([(trial(folder),)], 1, print) == []
    assert len(tried) == 2


def test_devices_are_handed_out_one_each(tmp_path, monkeypatch):
    seen = []

    class Process:
        def __init__(self, arguments, env, **_):
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def poll(self):
            return 0

    monkeypatch.setattr(sweep.subprocess, "Popen", Process)
    tasks = [(trial(tmp_path / name, f"seed={i}"),) for i, name in enumerate("abc")]
    assert sweep.run_all(tasks, 1, print, ["4", "7"]) == []
    assert sorted(seen[:2]) == ["4", "7"] and len(seen) == 3


def test_a_stored_sweep_comes_back(tmp_path):
    tasks = [(trial(tmp_path / "a"),), (trial(tmp_path / "b"), trial(tmp_path / "c", "seed=1"))]
    file = tmp_path / "new" / "sweep.json"
    trials.write_plan(file, tasks)
    assert trials.read_plan(file) == tasks
    for text in ("{", "[]", '{"tasks": [[{"config": "a"}]]}'):
        file.write_text(text)
        with pytest.raises(UserError, match=r"sweep\.json: is not the file of a sweep"):
            trials.read_plan(file)
    with pytest.raises(UserError, match="no such file"):
        trials.read_plan(tmp_path / "none.json")
