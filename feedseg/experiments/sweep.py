"""A sweep: a list of runs, those that are unfinished made by one process per task.

A run is an idempotent command, so a sweep has no state of its own: the run directories hold it. Two
sweeps may work on the same list; the lock on a run's directory decides which one makes the run.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from feedseg import datasets
from feedseg.experiments.trials import Task, Trial, command
from feedseg.runs import config as configs
from feedseg.runs.directory import read_json
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime import files
from feedseg.runtime.errors import SaveFailed, Stopped, UserError
from feedseg.runtime.signals import Stop

BUSY, AGAIN = 69, 75  # exit codes of a run: in use by another process; stopped and saved
_MOST_STARTS = 5  # of a run that stops by itself
_POLL_S = 0.5
_BUSY_S = 10.0  # until a directory in use is tried again
_REPORT_EVERY_S = 30.0


class Fingerprints:
    """Hashes of the current data, each computed once."""

    def __init__(self):
        self._known: dict[str, str] = {}

    def __call__(self, config) -> str:
        """Raises UserError if the data are missing."""
        key = json.dumps([config.data.to_dict(), config.data_dir, config.split.fold], default=str)
        if key not in self._known:
            self._known[key] = datasets.load(config).fingerprint()
        return self._known[key]


def state(trial: Trial, fingerprint: Callable[[object], str]) -> str:
    """`done`; `open`: not started or to be continued; `stale`: of another configuration or other
    data; `broken`: its result is unreadable.
    """
    config, _ = configs.parse_flags(trial.arguments())
    expected = configs.config_hash(configs.to_plain(config))
    stored = _read(trial.workdir / "config.json")
    if stored == "broken":
        return "broken"
    if stored and configs.config_hash(stored) != expected:
        return "stale"
    result = _read(trial.workdir / "result.json")
    if result == "broken" or (result and not result.get("complete")):
        return "broken"
    if not result:
        return "open"
    same = result.get("config_hash") == expected and result.get("data_hash") == fingerprint(config)
    return "done" if same else "stale"


def _read(path: Path) -> dict | str | None:
    """The content of a JSON file, None without one, `broken` if it is unreadable."""
    try:
        return read_json(path) if path.exists() else None
    except UserError:
        return "broken"


def set_aside(workdir: Path) -> Path:
    """Rename an unusable run directory; nothing is deleted. Returns its new name.

    Raises InUse if the run is in progress.
    """
    number = 1
    while (aside := workdir.with_name(f"{workdir.name}.old{number}")).exists():
        number += 1
    try:
        with WorkdirLock(workdir):
            return workdir.rename(aside)
    except OSError as error:
        raise SaveFailed(f"{workdir}: cannot be renamed ({error.strerror})") from None


class Failure(NamedTuple):
    """A run that ended with an error."""

    trial: Trial
    code: int
    message: str


def run_all(
    tasks: Sequence[Task],
    jobs: int,
    say: Callable[[str], None],
    devices: Sequence[str] = (),
    overview: Callable[[], None] | None = None,
) -> list[Failure]:
    """Make all unfinished runs; returns the failures.

    jobs: number of parallel processes without devices. devices: values of CUDA_VISIBLE_DEVICES, one
    process each. overview: called twice a second; by default `say` gets a line every half minute.
    Stale and broken directories are set aside. A stop signal is passed on to the running processes,
    which save their state; then Stopped is raised.
    """
    waiting = [left for left in missing(tasks, say) if left]
    total = sum(map(len, tasks))
    pool = _Pool(jobs, devices, total, total - sum(map(len, waiting)), say)
    with Stop() as stop:
        while (waiting or pool.running) and not stop.requested():
            while pool.free() and (ready := pool.first_ready(waiting)):
                waiting.remove(ready)
                pool.start(ready)
            time.sleep(_POLL_S)
            waiting.extend(pool.collect())
            (overview or pool.overview)()
        if stop.requested():
            pool.stop()
            raise Stopped(
                f"stopped by {stop.signal_name}: {pool.done} of {total} runs are done; the "
                "same command continues"
            )
    pool.overview(now=True)
    return pool.failures


def missing(tasks: Sequence[Task], say: Callable[[str], None], touch: bool = True) -> list[Task]:
    """Every task without its finished runs; a finished task is empty.

    touch: set stale and broken directories aside, so that their runs can be repeated, and remove
    what killed runs left in those of finished ones.
    """
    fingerprint, left = Fingerprints(), []
    for task in tasks:
        states = {trial: state(trial, fingerprint) for trial in task}
        for trial, word in states.items():
            if word in ("stale", "broken"):
                done = f"set aside as {set_aside(trial.workdir).name}" if touch else ""
                say(f"{trial.workdir} is {word}: {done or 'would be set aside'}")
            elif word == "done" and touch:
                files.remove_leftovers(trial.workdir)
        left.append(tuple(trial for trial, word in states.items() if word != "done"))
    return left


class _Pool:
    """The running processes of a sweep."""

    def __init__(self, jobs: int, devices: Sequence[str], total: int, done: int, say):
        self.running: dict[Task, tuple[subprocess.Popen, str, float]] = {}
        self.failures: list[Failure] = []
        self.total, self.done = total, done
        self._devices = list(devices) or [""] * max(1, jobs)
        self._jobs, self._say = len(self._devices), say
        self._starts: dict[Task, int] = {}
        self._not_before: dict[Task, float] = {}
        self._seconds: list[float] = []  # of a run
        self._reported = 0.0

    def free(self) -> bool:
        return bool(self._devices)

    def first_ready(self, waiting: Sequence[Task]) -> Task | None:
        """The first task whose directories are not known to be in use."""
        now = time.monotonic()
        return next((t for t in waiting if self._not_before.get(t, 0) <= now), None)

    def start(self, task: Task) -> None:
        device = self._devices.pop(0)
        environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": device} if device else {})}
        workdir = task[0].workdir
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            console = (workdir / "console.txt").open("ab")
        except OSError as error:
            raise SaveFailed(f"{workdir}: cannot be written ({error.strerror})") from None
        with console:
            process = subprocess.Popen(
                command(task),
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # the sweep passes Ctrl-C on
            )
        self.running[task] = (process, device, time.monotonic())

    def collect(self) -> list[Task]:
        """Tasks to be restarted."""
        again = []
        for task, (process, device, started) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[task]
            self._devices.append(device)
            starts = self._starts[task] = self._starts.get(task, 0) + (code == AGAIN)
            if code == BUSY or (code == AGAIN and starts < _MOST_STARTS):
                self._not_before[task] = time.monotonic() + (_BUSY_S if code == BUSY else 0)
                again.append(task)
            else:
                self._end(task, code, time.monotonic() - started)
        return again

    def _end(self, task: Task, code: int, seconds: float) -> None:
        """Count the runs of a finished task."""
        for trial in task:
            if code == 0 or _complete(trial):
                self.done += 1
                self._seconds.append(seconds / len(task))
            else:
                failure = Failure(trial, code, _last_line(task, trial))
                self.failures.append(failure)
                self._say(f"failed ({code}): {trial.config}: {failure.message}")

    def stop(self) -> None:
        for process, _, _ in self.running.values():
            process.terminate()
        for process, _, _ in self.running.values():
            process.wait()

    def overview(self, now: bool = False) -> None:
        """Report done, running and failed runs and the time left, every half minute."""
        if not now and time.monotonic() - self._reported < _REPORT_EVERY_S:
            return
        self._reported = time.monotonic()
        left = self.total - self.done - len(self.failures)
        text = f"{self.done} of {self.total} runs done, {len(self.failures)} failed"
        if self.running:
            running = [trial for task in self.running for trial in task]
            text += "; running: " + ", ".join(map(_progress, running))
        if self._seconds and left:
            mean = sum(self._seconds) / len(self._seconds)
            text += f"; about {mean * left / self._jobs / 60:.0f} min left"
        self._say(text)


def _progress(trial: Trial) -> str:
    """Name and last epoch of a run."""
    try:
        last = (trial.workdir / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
        return f"{trial.workdir.name} (epoch {json.loads(last)['epoch']})"
    except (OSError, ValueError, IndexError, KeyError):
        return trial.workdir.name


def _complete(trial: Trial) -> bool:
    result = _read(trial.workdir / "result.json")
    return isinstance(result, dict) and bool(result.get("complete"))


def _last_line(task: Task, trial: Trial) -> str:
    """The last output line of a task's process, on this run if the task has several."""
    try:
        text = (task[0].workdir / "console.txt").read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    lines = text.splitlines()
    own = [line for line in lines if line.startswith(f"feedseg: {trial.workdir}: ")]
    return (own or lines or [""])[-1]
