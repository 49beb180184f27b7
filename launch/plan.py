"""Writes the file of a sweep of your own configurations, one run each.

    python -m launch.plan runs/folds.json configs/unet.py:dataset=sstem,fold={0,1,2},seed={0,1} \\
        --config.train.epochs=60

The shell expands the braces. `feedseg reproduce TABLE --plan FILE` writes the file of a published
table. A run directory is ROOT/EXPERIMENT/NAME, with a short hash of the overrides, if any.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from feedseg.experiments.trials import placed, write_plan
from feedseg.runtime.errors import UserError, guarded
from feedseg.runtime.files import require_folder


def main(arguments: Sequence[str]) -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launch.plan", description="Write a sweep.")
    parser.add_argument("file", type=Path, metavar="FILE", help="output file, .json")
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="configs/x.py:key=value,...")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="parent of the runs (runs)")
    args, rest = parser.parse_known_args(arguments)
    overrides = [text.removeprefix("--config.") for text in rest if text.startswith("--config.")]
    if len(overrides) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    require_folder(args.file.parent)
    runs = [placed(text, overrides, args.root) for text in args.configs]
    folders = [run.workdir for run in runs]
    if double := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise UserError(f"{double}: two configurations would use this directory; name each once")
    write_plan(args.file, [(run,) for run in runs])
    print(f"{args.file}: {len(runs)} runs in {args.root}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
