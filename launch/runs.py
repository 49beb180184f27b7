"""The state of a run, read from its directory: result, lock, heartbeat, last output."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from feedseg.experiments import sweep, trials
from feedseg.runs import heartbeat
from feedseg.runtime import file_lock, json_files
from feedseg.runtime.errors import UserError
from launch.task import log_path

STATES = ("done", "running", "stopped", "stalled", "failed", "open")
SILENT_S = 600.0
CONSOLE = "console.txt"  # the output of a local task, in the directory of its first run
_GOES_ON = (
    sweep.AGAIN,
    sweep.BUSY,
    130,
)  # runs that continue when restarted; 130: Ctrl-C
_MARKS = ("config.json", heartbeat.NAME, "result.json", CONSOLE, ".lock")
_ERROR = re.compile(r"feedseg: |[\w.]*(Error|Exception)\b")
_NO_ERROR = re.compile(r"feedseg: stopped by|feedseg: interrupted|.* is in use by ")


class RunPlace(NamedTuple):
    """A run's directory; of a sweep also its task's number and the files with its output."""

    path: Path
    index: int | None = None
    logs: tuple[Path, ...] = ()


class RunStatus(NamedTuple):
    """The current state of a run; unknown numbers are None."""

    place: RunPlace
    state: str  # one of STATES
    note: str = ""
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    miou: float | None = None  # of the last validation, 0 to 1
    images_per_s: float | None = None
    left_s: float | None = None
    seconds: float | None = None  # duration of a finished run
    where: str = ""


def places(names: Sequence[Path]) -> list[RunPlace]:
    """The runs of sweeps (files) and folders; UserError if there are none."""
    result = []
    for name in names:
        if name.is_dir():
            result += [RunPlace(path) for path in _below(name)]
        else:
            result += of_tasks(name, trials.read_plan(name))
    if not result:
        raise UserError(f"{names[0]}: no run found; name the file of a sweep or a folder of runs")
    return list({place.path: place for place in result}.values())


def of_tasks(file: Path, tasks: Sequence[trials.Task]) -> list[RunPlace]:
    """The runs of a sweep."""
    return [
        RunPlace(trial.workdir, index, (task[0].workdir / CONSOLE, log_path(file, index, task)))
        for index, task in enumerate(tasks)
        for trial in task
    ]


def _below(root: Path) -> list[Path]:
    """Directories of runs, less those that were set aside."""
    folders = []
    for folder, inner, files in os.walk(root):
        inner.sort()
        if any(mark in files for mark in _MARKS):
            inner.clear()
            if not re.search(r"\.old\d+$", folder):
                folders.append(Path(folder))
    return folders


def look(place: RunPlace, silent_s: float = SILENT_S) -> RunStatus:
    """The run in a directory.

    silent_s: after this time without a heartbeat a process on another machine counts as dead.
    """
    path = place.path
    beat = heartbeat.read(path / heartbeat.NAME) or {}
    result, config = _json(path / "result.json"), _json(path / "config.json")
    row = _last_row(path / "metrics.jsonl")
    state, note = _state(place, beat, result, silent_s)
    running = state == "running"
    speed = beat.get("steps_per_s") if running else None
    return RunStatus(
        place,
        state,
        note,
        row.get("epoch"),
        (config.get("train") or {}).get("epochs"),
        beat.get("step", row.get("step")),
        beat.get("total_steps"),
        row.get("val/miou"),
        speed * beat["batch"] if speed and "batch" in beat else None,
        (beat["total_steps"] - beat["step"]) / speed if speed else None,
        result.get("seconds"),
        _where(beat) if state in ("running", "stalled") else "",
    )


def _state(place: RunPlace, beat: dict, result: dict, silent_s: float) -> tuple[str, str]:
    """One of STATES, and a note."""
    path, age_s = place.path, time.time() - beat.get("time", 0)
    if (path / "result.json").exists():
        return ("done", "") if result.get("complete") else ("failed", "result.json is damaged")
    if in_use(path):
        silent = beat and age_s > silent_s
        return "running", f"no sign for {age_s / 60:.0f} min" if silent else ""
    error = _last_error(path, place.logs or (path / CONSOLE,), beat.get("time", 0))
    if beat.get("exit_code", 0) not in (0, *_GOES_ON):
        return "failed", beat.get("error", "")
    if error:
        return "failed", error
    if not beat:
        saved = (path / "checkpoints").is_dir() and any((path / "checkpoints").iterdir())
        return ("stopped" if saved else "open"), ""
    if "exit_code" in beat:
        return "stopped", beat.get("error", "")
    if age_s < silent_s and beat.get("host") != socket.gethostname():
        return "running", ""  # its lock may be invisible from this machine
    return "stalled", f"last sign {age_s / 60:.0f} min ago"


def in_use(path: Path) -> bool:
    """Whether a process holds the lock of a directory, as far as this machine can see."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        file_lock.take(descriptor, shared=True)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return False
    finally:
        os.close(descriptor)
    return False


def _last_error(path: Path, files: Sequence[Path], since: float) -> str:
    """The error that ends a run's output after the time `since`; empty without one.

    In an output that several runs share, the line that names this run counts.
    """
    for file in files:
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < since:
                continue
            lines = last_lines(file)
            if _ERROR.match(lines[-1]) and not _NO_ERROR.match(lines[-1]):
                own = [line for line in lines if line.startswith(f"feedseg: {path}: ")]
                return (own or lines)[-1].removeprefix("feedseg: ")
    return ""


def last_lines(file: Path, most: int = 8192) -> list[str]:
    """The lines at the end of a file, of its last `most` bytes; one empty line if there is none."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - most))
        return stream.read().decode("utf-8", "replace").strip().splitlines() or [""]


def _last_row(file: Path) -> dict:
    try:
        return json_files.parse(last_lines(file)[-1])
    except (OSError, ValueError):
        return {}


def _json(file: Path) -> dict:
    try:
        return json_files.read(file)
    except (OSError, ValueError):
        return {}


def _where(beat: dict) -> str:
    job = f" job {beat['job']}" if beat.get("job") else ""
    return f"{beat.get('host', '')}{job}"
