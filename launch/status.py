"""The state of runs, from their directories alone.

    python -m launch.status FILE                # the runs of a sweep
    python -m launch.status runs/reproduce      # all runs below a folder
    python -m launch.status FILE --watch 10 --scheduler

done; running; stopped: saved on request, continues when restarted; stalled: its process died
without notice (killed, out of memory, power), continues when restarted; failed: would fail again;
open: not started. A process on another machine counts as dead after --silent minutes without a
heartbeat. --scheduler also asks squeue, as a hint: the directories decide.
Exit code 0: all done; 1: some failed; 75: none failed, some are not done.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from feedseg.runtime.errors import guarded
from feedseg.runtime.tables import aligned
from launch.runs import SILENT_S, STATES, RunStatus, look, places

_HEAD = ("run", "state", "epoch", "step", "val mIoU", "images/s", "left", "where", "")
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def table(runs: Sequence[RunStatus], queue: dict[int, str] | None = None) -> str:
    """A line per run, then the totals. queue: the scheduler's state by task number."""
    rows = [_HEAD, *(_cells(run, (queue or {}).get(run.place.index, "")) for run in runs)]
    return "\n".join([*aligned(rows, "l"), "", totals(runs)])


def _cells(run: RunStatus, queued: str) -> tuple[str, ...]:
    queued = f"[queue: {queued}]" if queued else ""
    return (
        str(run.place.path),
        run.state,
        _of(run.epoch, run.epochs),
        _of(run.step, run.steps),
        "-" if run.miou is None else f"{100 * run.miou:.1f}",
        "-" if run.images_per_s is None else f"{run.images_per_s:.1f}",
        "-" if run.left_s is None else duration(run.left_s),
        run.where,
        f"{run.note} {queued}".strip(),
    )


def _of(part: int | None, whole: int | None) -> str:
    if part is None:
        return "-"
    return str(part) if whole is None else f"{part}/{whole}"


def totals(runs: Sequence[RunStatus]) -> str:
    """Number of runs in each state, and the estimated time left."""
    count = Counter(run.state for run in runs)
    text = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    left = time_left(runs)
    return f"{len(runs)} runs: {text}" + ("" if left is None else f"; about {duration(left)} left")


def time_left(runs: Sequence[RunStatus]) -> float | None:
    """Seconds at the current number of parallel runs; None if unknown.

    A waiting run is assumed to take the mean time of the finished ones.
    """
    running = [run for run in runs if run.state == "running"]
    waiting = [run for run in runs if run.state in ("open", "stopped", "stalled")]
    done = [run.seconds for run in runs if run.seconds is not None]
    if not running or any(run.left_s is None for run in running) or (waiting and not done):
        return None
    ahead = len(waiting) * sum(done) / len(done) if waiting else 0
    return max(
        max(run.left_s for run in running),
        (sum(run.left_s for run in running) + ahead) / len(running),
    )


def duration(seconds: float) -> str:
    """In words, e.g. `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def exit_code(runs: Sequence[RunStatus]) -> int:
    """0: all done; 1: some failed; 75: none failed, some are not done."""
    states = {run.state for run in runs}
    return 1 if "failed" in states else 0 if states == {"done"} else 75


def ask_scheduler(file: Path) -> dict[int, str] | None:
    """State and reason of the queued tasks of a sweep, by number; None without an answer."""
    command = ["squeue", "--me", "-h", "-r", f"--name={file.stem}", "-o", "%K|%T|%r"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if ended.returncode:
        return None
    rows = [line.split("|") for line in ended.stdout.splitlines()]
    return {
        int(index): state if reason in ("None", "") else f"{state}, {reason}"
        for index, state, reason in rows
        if index.isdigit()
    }


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launch.status", description="State of runs.")
    parser.add_argument("names", nargs="+", type=Path, metavar="FILE|ROOT")
    parser.add_argument("--watch", type=float, metavar="S", help="repeat every S seconds")
    parser.add_argument(
        "--silent",
        type=float,
        default=SILENT_S / 60,
        metavar="MIN",
        help="heartbeat timeout",
    )
    parser.add_argument("--scheduler", action="store_true", help="also ask squeue")
    args = parser.parse_args(arguments)
    if args.scheduler and any(name.is_dir() for name in args.names):
        parser.error("--scheduler: name the file of a sweep")
    while True:
        runs = [look(place, 60 * args.silent) for place in places(args.names)]
        show(runs, args)
        if not args.watch or exit_code(runs) == 0:
            return exit_code(runs)
        try:
            time.sleep(args.watch)
        except KeyboardInterrupt:
            return exit_code(runs)


def show(runs: Sequence[RunStatus], args: argparse.Namespace) -> None:
    """The table on the screen, which is cleared before if it is watched."""
    queue = {}
    for name in args.names if args.scheduler else ():
        queue |= ask_scheduler(name) or {}
    text = table(runs, queue)
    if args.watch and sys.stdout.isatty():
        text = _CLEAR + text
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
