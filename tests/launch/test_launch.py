"""Sweeps without a cluster: signs of life, the state of runs, what would be submitted, one task."""

import io
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feedseg.experiments import sweep, trials
from feedseg.main import guarded
from feedseg.runs import heartbeat
from feedseg.runs.heartbeat import Heartbeat
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime.errors import Diverged, Stopped, UserError
from launch import local, plan, runs, slurm, status, submit, task
from launch.runs import RunPlace
from tests.support import tiny

TINY = str(Path(tiny.__file__))


def launched(module: str, *arguments) -> subprocess.CompletedProcess:
    """`python -m launch.MODULE ARGUMENTS` in the root of the repository."""
    command = [sys.executable, "-m", f"launch.{module}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT)


# Signs of life ------------------------------------------------------------------------------------


def test_a_beat_says_how_far_the_run_is_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    pulse = Heartbeat(tmp_path / heartbeat.NAME, total_steps=50, every_s=0)
    pulse.beat(10, batch=7)
    time.sleep(0.01)
    pulse.beat(20)
    found = heartbeat.read(tmp_path / heartbeat.NAME)
    assert (found["step"], found["total_steps"], found["batch"]) == (20, 50, 7)
    assert found["host"] == socket.gethostname() and found["pid"] == os.getpid()
    assert found["job"] == "12_3" and abs(found["time"] - time.time()) < 60
    assert 0 < found["steps_per_s"] <= 1000


def test_beats_are_written_at_most_every_so_many_seconds(tmp_path):
    path = tmp_path / heartbeat.NAME
    with Heartbeat(path, 50, every_s=3600) as pulse:
        pulse.beat(1)
        assert heartbeat.read(path)["step"] == 0
    assert heartbeat.read(path)["step"] == 1  # the end is always written


@pytest.mark.parametrize(
    "error, code, text",
    [
        (None, 0, ""),
        (Stopped("stopped at\nstep 3"), 75, "stopped at step 3"),
        (Diverged("NaN"), 65, "NaN"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt: "),
        (ValueError("of a bug"), 1, "ValueError: of a bug"),
    ],
)
def test_the_end_is_told_once(tmp_path, error, code, text):
    path = tmp_path / heartbeat.NAME
    with Heartbeat(path, 50) as pulse:
        pulse.end(error)
    found = heartbeat.read(path)
    assert (found["exit_code"], found["error"]) == (code, text)


def test_a_sign_that_cannot_be_written_or_read_harms_nobody(tmp_path):
    with Heartbeat(tmp_path / "missing" / heartbeat.NAME, 50, every_s=0) as pulse:
        pulse.beat(1, odd=object())
    for text in ("", "{", "[]", '{"time": "now"}'):
        (tmp_path / heartbeat.NAME).write_text(text)
        assert heartbeat.read(tmp_path / heartbeat.NAME) is None
    assert heartbeat.read(tmp_path / "none") is None


# The state of a run -------------------------------------------------------------------------------


def write_run(path: Path, *, beat: dict | None = None, result: dict | None = None, said=""):
    """A made-up run directory, in its second of four epochs."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"train": {"epochs": 4}}))
    rows = [{"epoch": n, "step": 10 * n, "val/miou": 0.1 * n} for n in (1, 2)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if said:
        (path / "console.txt").write_text(said)
    if result is not None:
        (path / "result.json").write_text(json.dumps(result))
    if beat is not None:
        usual = {"step": 23, "total_steps": 40, "time": time.time(), "host": socket.gethostname()}
        (path / heartbeat.NAME).write_text(json.dumps({**usual, "pid": 1, "job": "", **beat}))
    return RunPlace(path)


def state(*args, **options) -> str:
    return runs.look(write_run(*args, **options)).state


def test_states_without_a_process(tmp_path):
    old = time.time() - 3600
    assert runs.look(RunPlace(tmp_path / "nowhere")).state == "open"
    assert state(tmp_path / "done", result={"complete": True}) == "done"
    assert state(tmp_path / "damaged", result={"complete": False}) == "failed"
    assert state(tmp_path / "new") == "open"
    assert state(tmp_path / "stopped", beat={"exit_code": 75, "error": "stopped"}) == "stopped"
    assert state(tmp_path / "nan", beat={"exit_code": 65, "error": "NaN"}) == "failed"
    assert state(tmp_path / "killed", beat={}) == "stalled"
    assert state(tmp_path / "elsewhere", beat={"host": "n7"}) == "running"
    assert state(tmp_path / "silent", beat={"host": "n7", "time": old}) == "stalled"


def test_a_run_with_a_checkpoint_but_no_sign_is_stopped(tmp_path):
    place = write_run(tmp_path / "run")
    (place.path / "checkpoints" / "10").mkdir(parents=True)
    assert runs.look(place).state == "stopped"


def test_the_last_words_tell_of_an_error(tmp_path):
    said = "epoch 1\nfeedseg: data.name: did you mean 'sstem'?\n"
    found = runs.look(write_run(tmp_path / "wrong", said=said))
    assert (found.state, found.note) == ("failed", "data.name: did you mean 'sstem'?")
    bug = "Traceback (most recent call last):\n  File x\njax.errors.TypeError: no\n"
    assert state(tmp_path / "bug", said=bug) == "failed"
    for words in ("epoch 3", "feedseg: stopped by SIGTERM at step 3", "feedseg: x is in use by y"):
        assert state(tmp_path / words, said=f"{words}\n") == "open"


def test_words_from_before_the_last_sign_do_not_count(tmp_path):
    place = write_run(tmp_path / "run", said="feedseg: no data\n", beat={"exit_code": 75})
    os.utime(place.path / "console.txt", (1, 1))
    assert runs.look(place).state == "stopped"


def test_of_several_runs_with_one_log_each_gets_its_own_line(tmp_path):
    log = tmp_path / "log.txt"
    first, second = (write_run(tmp_path / name).path for name in "ab")
    log.write_text(f"feedseg: {first}: no data\nfeedseg: {second}: NaN\n")
    found = [runs.look(RunPlace(path, 0, (log,))) for path in (first, second)]
    assert [run.note for run in found] == [f"{first}: no data", f"{second}: NaN"]


def test_a_run_whose_directory_is_locked_is_running(tmp_path):
    gone = time.time() - 1200
    beat = {"time": gone, "steps_per_s": 0.5, "batch": 16, "job": "12_3", "host": "n7"}
    place = write_run(tmp_path / "run", beat=beat)
    with WorkdirLock(place.path):
        found = runs.look(place)
    assert found.state == "running" and found.note == "no sign for 20 min"
    assert (found.epoch, found.epochs, found.step, found.steps) == (2, 4, 23, 40)
    assert (found.miou, found.images_per_s, found.left_s) == (0.2, 8.0, 34.0)
    assert found.where == "n7 job 12_3"
    assert runs.look(place).state == "stalled"


def test_looking_leaves_no_trace(tmp_path):
    place = write_run(tmp_path / "run", beat={})
    before = sorted(place.path.iterdir())
    runs.look(place)
    assert sorted(place.path.iterdir()) == before


# The table ----------------------------------------------------------------------------------------


def trial(folder: Path, *changes: str) -> trials.Trial:
    return trials.Trial(TINY, changes, folder)


@pytest.fixture
def planned(tmp_path) -> Path:
    """A sweep of three tasks: done, running elsewhere, and two open runs as one program."""
    file = tmp_path / "sweep.json"
    places = [tmp_path / name for name in "abcd"]
    trials.write_plan(
        file, [(trial(places[0]),), (trial(places[1]),), tuple(map(trial, places[2:]))]
    )
    write_run(places[0], result={"complete": True, "seconds": 60.0})
    write_run(places[1], beat={"host": "n7", "steps_per_s": 0.5})
    return file


def test_the_table_of_a_sweep(planned, tmp_path, capsys):
    assert status.main([str(planned)]) == 75
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:5]] == ["state", "done", "running", "open", "open"]
    cells = ["running", "2/4", "23/40", "20.0", "-", "34", "s", "n7"]
    assert lines[2].split() == [str(tmp_path / "b"), *cells]
    # 17 steps at 0.5 per s, and two runs of a minute after each other
    assert lines[-1] == "4 runs: 1 done, 1 running, 2 open; about 3 min left"


def test_all_runs_below_a_folder_less_those_set_aside(planned, tmp_path, capsys):
    write_run(tmp_path / "a.old1", result={"complete": True})
    (tmp_path / "a" / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "a" / "checkpoints" / "3" / "config.json").touch()  # none of a run
    assert [place.path.name for place in runs.places([tmp_path])] == ["a", "b"]
    (tmp_path / "none").mkdir()
    assert guarded(status.main, [str(tmp_path / "none")]) == 2
    assert "no run found" in capsys.readouterr().err


def test_exit_codes_of_the_status(tmp_path):
    def code(*states: str) -> int:
        return status.exit_code([runs.RunStatus(RunPlace(tmp_path), each) for each in states])

    assert code("done", "done") == 0
    assert code("done", "running", "failed", "open") == 1
    assert [code("done", other) for other in ("running", "stopped", "stalled", "open")] == [75] * 4


def test_the_scheduler_is_a_hint(planned, tmp_path, monkeypatch, capsys):
    fake(tmp_path, monkeypatch, "squeue", "echo '2|PENDING|Priority'; echo 'N/A|RUNNING|None'")
    status.main([str(planned), "--scheduler"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].endswith("[queue: PENDING, Priority]") and lines[3].split()[1] == "open"
    assert "queue" not in lines[2]
    fake(tmp_path, monkeypatch, "squeue", "exit 1")
    assert status.main([str(planned), "--scheduler"]) == 75


def test_watching_ends_when_all_is_done(planned, tmp_path, monkeypatch, capsys):
    def finish(seconds: float) -> None:
        assert seconds == 5
        for name in "bcd":
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "result.json").write_text('{"complete": true}')

    monkeypatch.setattr(status.time, "sleep", finish)
    assert status.main([str(planned), "--watch", "5"]) == 0
    assert capsys.readouterr().out.count("4 runs: ") == 2


@pytest.mark.parametrize(
    "seconds, words", [(12.4, "12 s"), (600, "10 min"), (7200, "2.0 h"), (90, "2 min")]
)
def test_durations(seconds, words):
    assert status.duration(seconds) == words


# One task -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables, index",
    [
        ({"SLURM_ARRAY_TASK_ID": "0"}, 0),
        ({"LSB_JOBINDEX": "1"}, 0),
        ({"LSB_JOBINDEX": "0", "PBS_ARRAY_INDEX": "4"}, 4),  # LSF's 0: no array
    ],
)
def test_the_index_comes_from_the_scheduler(variables, index):
    assert task.array_index(variables) == index


def test_a_task_that_is_not_there(planned, capsys):
    with pytest.raises(UserError, match="give --index"):
        task.array_index({"LSB_JOBINDEX": "0"})
    assert guarded(task.main, [str(planned), "--index", "3"]) == 2
    assert "has 3 tasks, counted from 0; 3 is out of range" in capsys.readouterr().err


def test_a_task_becomes_its_command_and_writes_its_own_log(tmp_path, monkeypatch):
    file = tmp_path / "sweep.json"
    trials.write_plan(file, [(trial(tmp_path / "a"),), (trial(tmp_path / "b", "model.name=umet"),)])
    monkeypatch.setenv("LSB_JOBINDEX", "2")
    ended = launched("task", file, "--log")
    log = tmp_path / "sweep-logs" / "0001-b.txt"
    assert ended.returncode == 2 and ended.stdout == f"output: {log}\n"
    assert "did you mean 'unet'" in log.read_text()


def test_a_task_of_several_runs_is_named_after_the_first(planned):
    assert task.log_path(planned, 2, task.pick(planned, 2)).name == "0002-c+1.txt"


# SLURM --------------------------------------------------------------------------------------------


def fake(folder: Path, monkeypatch, name: str, script: str) -> None:
    """A command of that name before all others."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.fixture
def fresh(tmp_path) -> Path:
    """A sweep of two open runs."""
    file = tmp_path / "my sweep.json"
    trials.write_plan(file, [(trial(tmp_path / "a"),), (trial(tmp_path / "b", "seed=1"),)])
    return file


def test_numbers_as_slurm_writes_them():
    assert slurm.ranges([0, 1, 2, 3, 7]) == "0-3,7"
    assert slurm.ranges([5]) == "5"
    assert slurm.ranges([0, 2, 3]) == "0,2-3"


def test_a_dry_run_prints_the_script_and_leaves_no_trace(fresh, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    options = ("--time=1-00", "--gpus=a100:2", "--concurrent=3", "--nodes=2", "--account=bio")
    more = ("--tasks-per-node=2", "--sbatch-arg=--qos=low", "--collect=feedseg x --collect")
    assert slurm.main([str(fresh), "--dry-run", *options, *more]) == 0
    text = capsys.readouterr().out
    script, _, after = text.partition("\n# sbatch ")
    wanted = ("array=0-1%3", "time=1-00", "gres=gpu:a100:2", "nodes=2", "ntasks-per-node=2")
    for option in (*wanted, "account=bio", "qos=low", "requeue", "signal=TERM@120"):
        assert f"#SBATCH --{option}\n" in script
    assert "partition" not in script and "@" not in script.replace("TERM@120", "")
    assert f"-m launch.task '{fresh}' --index" in script
    assert "--dependency=afterany:ARRAY" in after and "'--wrap=feedseg x --collect'" in after
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]
    syntax = subprocess.run(["/bin/bash", "-n"], input=script.partition("\n")[2], text=True)
    assert syntax.returncode == 0


def test_no_gpu_is_asked_for_with_zero(fresh, capsys):
    slurm.main([str(fresh), "--dry-run", "--gpus=0"])
    assert "gres" not in capsys.readouterr().out


def test_the_array_is_submitted_and_then_its_collecting_job(fresh, tmp_path, monkeypatch, capsys):
    fake(tmp_path, monkeypatch, "sbatch", f'echo "$@" >> "{tmp_path}/asked"; echo "41;cluster"')
    assert slurm.main([str(fresh), "--collect=make table"]) == 0
    first, second = (tmp_path / "asked").read_text().splitlines()
    script = tmp_path / "my sweep-logs" / "array.sbatch"
    assert first == f"--parsable {script}" and "#SBATCH --array=0-1\n" in script.read_text()
    assert "--dependency=afterany:41 " in second and second.endswith("--wrap=make table")
    assert "submitted 2 tasks as job 41" in capsys.readouterr().out


def test_what_slurm_refuses_is_said_in_a_line(fresh, tmp_path, monkeypatch, capsys):
    fake(tmp_path, monkeypatch, "sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    assert guarded(slurm.main, [str(fresh)]) == 2
    assert capsys.readouterr().err == "feedseg: sbatch: sbatch: error: invalid partition\n"
    monkeypatch.setenv("PATH", "/nowhere")
    assert guarded(slurm.main, [str(fresh)]) == 2
    assert "sbatch not found" in capsys.readouterr().err


def test_stale_directories_are_set_aside_when_submitting_only(fresh, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text("{")
    tasks, said = trials.read_plan(fresh), []
    assert slurm.unfinished(tasks, said.append, touch=False) == [0, 1]
    assert (tmp_path / "b").exists()
    assert slurm.unfinished(tasks, said.append) == [0, 1]
    assert (tmp_path / "b.old1").exists() and not (tmp_path / "b").exists()
    assert said[0].endswith("is broken: would be set aside")
    assert said[1].endswith("is broken: set aside as b.old1")


# submitit -----------------------------------------------------------------------------------------


def test_without_submitit_it_says_how_to_get_it(fresh, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert guarded(submit.main, [str(fresh)]) == 2
    assert 'pip install -e ".[slurm]"' in capsys.readouterr().err


def test_a_task_through_submitit_on_this_machine(tmp_path):
    pytest.importorskip("submitit")
    file = tmp_path / "sweep.json"
    trials.write_plan(file, [(trial(tmp_path / "a", "data.name=synthetik"),)])
    ended = launched("submit", file, "--cluster=local")
    assert ended.returncode == 1 and "task 0: exit code 2;" in ended.stdout
    assert "did you mean 'synthetic'" in (tmp_path / "sweep-logs" / "0000-a.txt").read_text()
    folder = tmp_path / "sweep-logs" / "submitit"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "text, count",
    [("90", 90), ("30:01", 31), ("04:00:00", 240), ("2-12", 3600), ("1-00:30", 1470)],
)
def test_times_as_slurm_writes_them(text, count):
    assert submit.minutes(text) == count


def test_a_time_that_is_none():
    with pytest.raises(UserError, match="--time soon"):
        submit.minutes("soon")


# This machine -------------------------------------------------------------------------------------


def test_gpus_that_may_be_used(tmp_path, monkeypatch):
    assert local.gpus({"CUDA_VISIBLE_DEVICES": "4, GPU-1f"}) == ("4", "GPU-1f")
    assert local.gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert local.gpus({"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}) == ()
    listed = "GPU 0: H100 (UUID: GPU-1)\\nGPU 1: H100 (UUID: GPU-2)"
    fake(tmp_path, monkeypatch, "nvidia-smi", f"printf '{listed}\\n'")
    assert local.gpus({}) == ("0", "1")
    fake(tmp_path, monkeypatch, "nvidia-smi", "echo 'no driver'; exit 9")
    assert local.gpus({}) == ()


class Terminal(io.StringIO):
    def fileno(self) -> int:
        return 1


def test_the_overview_is_drawn_in_place(planned, monkeypatch):
    monkeypatch.setattr(local.os, "get_terminal_size", lambda _: os.terminal_size((60, 24)))
    monkeypatch.setattr(local, "_DRAW_EVERY_S", 0)
    screen = Terminal()
    board = local.Board(runs.of_tasks(planned, trials.read_plan(planned)), screen)
    board.draw()
    first = screen.getvalue()
    assert first == (
        "4 runs: 1 done, 1 running, 2 open; about 3 min left\n"
        "  b  epoch 2/4  val mIoU 20.0  34 s left\n"
    )
    board.say("failed")
    board.draw()
    # two lines up and erased; the line that stays; below it the overview again
    assert screen.getvalue() == first + "\x1b[2F\x1b[Jfailed\n" + first


def test_a_sweep_here_with_a_run_that_fails(tmp_path, monkeypatch, capsys):
    file = tmp_path / "sweep.json"
    small = ("train.epochs=1", "data.synthetic_count=6")
    good, bad = trial(tmp_path / "a", *small), trial(tmp_path / "b", "data.name=synthetik")
    trials.write_plan(file, [(good,), (bad,)])
    monkeypatch.chdir(tiny.ROOT)
    assert local.main([str(file), "--jobs=2"]) == 1
    text = capsys.readouterr().out
    assert "1 of 2 runs done, 1 failed" in text and f"failed (2): {bad.workdir}: " in text
    assert status.main([str(file)]) == 1
    assert "1 done, 1 failed" in capsys.readouterr().out


def test_a_stopped_sweep_ends_with_75(fresh, monkeypatch):
    def stopped(*_):
        raise Stopped("stopped by SIGTERM")

    monkeypatch.setattr(sweep, "run_all", stopped)
    assert guarded(local.main, [str(fresh)]) == 75


# A file of one's own ------------------------------------------------------------------------------


def test_a_sweep_of_configurations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny.ROOT)
    file = tmp_path / "sweep.json"
    configs = [f"configs/unet.py:dataset=synthetic,seed={seed}" for seed in (0, 1)]
    assert plan.main([str(file), *configs, "--root", "r", "--config.train.epochs=2"]) == 0
    tasks = trials.read_plan(file)
    assert [len(one) for one in tasks] == [1, 1]
    assert [one[0].config for one in tasks] == configs
    assert tasks[0][0].overrides == ("train.epochs=2",)
    assert len({one[0].workdir for one in tasks}) == 2
    assert all(one[0].workdir.is_relative_to("r") for one in tasks)
    assert guarded(plan.main, [str(tmp_path / "x"), configs[0], configs[0]]) == 2
    assert "two configurations would use this directory" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
