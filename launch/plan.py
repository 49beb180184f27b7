"""A file of a sweep from configurations of your own, one run each.

    python -m launch.plan runs/folds.json configs/unet.py:dataset=sstem,fold={0,1,2},seed={0,1} \\
        --config.train.epochs=60

The shell writes out the braces. `feedseg reproduce TABLE --plan FILE` makes the file of a published
table. A run lies in ROOT/EXPERIMENT/NAME, with a short hash of the changed keys if there are any.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from feedseg.experiments.trials import placed, write_plan
from feedseg.runtime.errors import UserError, guarded


def main(arguments: Sequence[str]) -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launch.plan", description="File of a sweep.")
    parser.add_argument("file", type=Path, metavar="FILE", help="to be written, .json")
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="configs/x.py:key=value,...")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="of the runs (runs)")
    args, rest = parser.parse_known_args(arguments)
    changes = [each.removeprefix("--config.") for each in rest if each.startswith("--config.")]
    if len(changes) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    runs = [placed(text, changes, args.root) for text in args.configs]
    places = [each.workdir for each in runs]
    if double := next((place for place in places if places.count(place) > 1), None):
        raise UserError(f"{double}: two configurations would use this directory; name each once")
    write_plan(args.file, [(each,) for each in runs])
    print(f"{args.file}: {len(runs)} runs in {args.root}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
