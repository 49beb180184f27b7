"""Runs one task of a sweep in this process, for any scheduler.

    python -m launch.task FILE --index 3          # counted from 0
    bsub -J "sweep[1-20]" python -m launch.task FILE --log      # LSF counts from 1
    echo 'cd $PBS_O_WORKDIR; python -m launch.task FILE --log' | qsub -J 0-19      # PBS

Without --index the number is SLURM_ARRAY_TASK_ID, LSB_JOBINDEX minus 1, or PBS_ARRAY_INDEX. The
exit code is the run's; 75: stopped and saved, start again. --log appends the output to a file named
after the run in the folder of logs beside FILE.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.experiments import sweep, trials
from feedseg.runtime.errors import SaveFailed, UserError, guarded

# Exit codes after which a task is requeued; TERM may arrive before the run handles signals.
AGAIN = (sweep.AGAIN, sweep.BUSY, -signal.SIGTERM)
_COUNTS_FROM = {"SLURM_ARRAY_TASK_ID": 0, "LSB_JOBINDEX": 1, "PBS_ARRAY_INDEX": 0}
_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
_UNTIL_ENDED_S = 60


def name(task: trials.Task) -> str:
    """Name of a task: that of its first run, with the number of further runs."""
    more = f"+{len(task) - 1}" if len(task) > 1 else ""
    return task[0].workdir.name + more


def log_folder(file: Path) -> Path:
    """Folder of the logs of a sweep's tasks."""
    return file.with_name(f"{file.stem}-logs")


def log_path(file: Path, index: int, task: trials.Task) -> Path:
    """File for the output of a task."""
    return log_folder(file) / f"{index:04d}-{name(task)}.txt"


def array_index(environment: Mapping[str, str]) -> int:
    """Number of the task, counted from 0, from a scheduler's variables. Raises UserError."""
    for variable, first in _COUNTS_FROM.items():
        text = environment.get(variable, "")
        if text.isdigit() and int(text) >= first:
            return int(text) - first
    raise UserError(
        f"no task number: give --index, or start the task in an array ({', '.join(_COUNTS_FROM)})"
    )


def pick(file: Path, index: int) -> trials.Task:
    """A task of a stored sweep. Raises UserError if there is none of this number."""
    tasks = trials.read_plan(file)
    if not 0 <= index < len(tasks):
        raise UserError(f"{file} has {len(tasks)} tasks, counted from 0; {index} is out of range")
    return tasks[index]


def main(arguments: Sequence[str]) -> int:
    """Replace this process by that of the task."""
    parser = argparse.ArgumentParser(prog="python -m launch.task", description="Run one task.")
    parser.add_argument("file", type=Path, metavar="FILE", help="file of a sweep")
    parser.add_argument("--index", type=int, help="number of the task, counted from 0")
    parser.add_argument("--log", action="store_true", help="append the output to a log file")
    args = parser.parse_args(arguments)
    index = array_index(os.environ) if args.index is None else args.index
    task = pick(args.file, index)
    command = trials.command(task)
    if args.log:
        _write_to(log_path(args.file, index, task))
    sys.stdout.flush()
    os.execv(command[0], command)


def _write_to(path: Path) -> None:
    """Append the output of this process to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise SaveFailed(f"{path}: cannot be written ({error.strerror})") from None
    print(f"output: {path}", flush=True)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def run(spec: dict) -> dict:
    """A task as a child of this process, for submitit: plain dicts in and out.

    spec: file, index, requeue. Returns index, code and log. Signals are passed on to
    the run. requeue: requeue an unfinished task in SLURM.
    """
    file, index = Path(spec["file"]), spec["index"]
    command = [sys.executable, "-m", "launch.task", str(file), "--index", str(index), "--log"]
    child = subprocess.Popen(command)
    former = {number: signal.signal(number, _forward(child)) for number in _FORWARDED}
    try:
        code = child.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if code in AGAIN and spec["requeue"]:
        _requeue()
    return {"index": index, "code": code, "log": str(log_path(file, index, pick(file, index)))}


def _forward(child: subprocess.Popen):
    def handler(number, frame) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    return handler


def _requeue() -> None:
    """Requeue the SLURM job, which ends this process, unless it was canceled."""
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return
    job = os.environ["SLURM_JOB_ID"]
    state = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True)
    if state.stdout.strip() != "RUNNING":
        return
    if subprocess.run(["scontrol", "requeue", job]).returncode == 0:
        time.sleep(_UNTIL_ENDED_S)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
