"""A sweep on this machine: one task at a time on each GPU, or --jobs at once without GPUs.

    python -m launch.local FILE
    python -m launch.local FILE --devices 0,1     # or --jobs 2

On a terminal the overview is redrawn in place, else it is a line every half minute. The same
command continues an interrupted sweep. Exit code: 0; 1 if runs failed; 75 when stopped.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.experiments import sweep, trials
from feedseg.runtime.errors import guarded
from launch.runs import RunPlace, RunStatus, look, of_tasks
from launch.status import duration, totals

_DRAW_EVERY_S = 2.0
_MOST_LINES = 20  # of running runs in the overview


class Board:
    """Permanent lines on a terminal, and below them an overview that is redrawn in place."""

    def __init__(self, places: Sequence[RunPlace], stream=sys.stdout):
        self._places, self._stream = places, stream
        self._lines = 0  # of the overview on the screen
        self._drawn = float("-inf")

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._erase()
        print(text, file=self._stream, flush=True)

    def draw(self) -> None:
        """Redraw the overview, totals and progress of the running runs, at most every 2 s."""
        if time.monotonic() - self._drawn < _DRAW_EVERY_S:
            return
        self._drawn = time.monotonic()
        runs = [look(place) for place in self._places]
        running = [run for run in runs if run.state == "running"]
        lines = [totals(runs), *(f"  {describe(run)}" for run in running[:_MOST_LINES])]
        width = os.get_terminal_size(self._stream.fileno()).columns
        self._erase()
        print(*(line[: width - 1] for line in lines), sep="\n", file=self._stream, flush=True)
        self._lines = len(lines)

    def _erase(self) -> None:
        if self._lines:
            self._stream.write(f"\x1b[{self._lines}F\x1b[J")
        self._lines = 0


def describe(run: RunStatus) -> str:
    """A running run in a line."""
    parts = [run.place.path.name]
    if run.epoch is not None:
        parts.append(f"epoch {run.epoch}/{run.epochs}")
    if run.miou is not None:
        parts.append(f"val mIoU {100 * run.miou:.1f}")
    if run.left_s is not None:
        parts.append(f"{duration(run.left_s)} left")
    return "  ".join(parts)


def gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values of CUDA_VISIBLE_DEVICES, one per GPU that this process may use."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return ()
    if "CUDA_VISIBLE_DEVICES" in environment:
        named = [name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(",")]
        return tuple(name for name in named if name and name not in ("-1", "NoDevFiles"))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return tuple(str(number) for number in range(sum(line.startswith("GPU ") for line in lines)))


def main(arguments: Sequence[str]) -> int:
    """Runs the sweep; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launch.local", description="Run a sweep here.")
    parser.add_argument("file", type=Path, metavar="FILE", help="file of a sweep")
    parser.add_argument("--jobs", type=int, default=1, help="parallel tasks without GPUs (1)")
    parser.add_argument("--devices", default="", help="GPUs, one task on each: 0,1 (all)")
    args = parser.parse_args(arguments)
    tasks = trials.read_plan(args.file)
    devices = tuple(filter(None, args.devices.split(","))) or gpus(os.environ)
    say, overview = print, None
    if sys.stdout.isatty():
        board = Board(of_tasks(args.file, tasks))
        say, overview = board.say, board.draw
    failures = sweep.run_all(tasks, args.jobs, say, devices, overview)
    for failure in failures:
        say(f"failed ({failure.code}): {failure.trial.workdir}: {failure.message}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
