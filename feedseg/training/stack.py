"""Trains several runs as one program: `python -m feedseg.training.stack RUN RUN ...`.

RUN: the arguments of `feedseg.main` as a JSON list, with a workdir. The runs need not be alike:
those of one network and size are one program, the others follow. A run that is finished, in use or
fails does not keep the others. Exit code: 0, or that of the first run that failed.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import feedseg
from feedseg.runs import config as configs
from feedseg.runtime import console, signals
from feedseg.runtime.errors import FeedsegError, InUse, UserError, guarded
from feedseg.runtime.logs import Log


def stack(runs: Sequence[str]) -> int:
    """Make the runs; returns the exit code."""
    arguments = list(map(_arguments, runs))
    console.say(f"feedseg {feedseg.__version__}: {len(arguments)} runs in one process")
    from feedseg.training import train

    orders = []
    for each in arguments:
        config, workdir = configs.parse_flags(each)
        if not workdir:
            raise UserError(f"{each}: a run of several needs its --workdir")
        orders.append(train.RunSpec(config, Path(workdir), Log(f"{Path(workdir).name}: ")))
    outcomes = train.run_together(orders)
    failed = []
    for order, outcome in zip(orders, outcomes, strict=True):
        if isinstance(outcome, FeedsegError):
            failed.append(outcome)
            console.warn(f"feedseg: {order.workdir}: {outcome}")
    # one that is in use is to be tried again, which is no use to one that has failed
    failed.sort(key=lambda error: isinstance(error, InUse))
    return failed[0].exit_code if failed else 0


def _arguments(text: str) -> list[str]:
    try:
        found = json.loads(text)
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    except ValueError:
        pass
    raise UserError(f"{text!r}: a run is the arguments of feedseg.main as a JSON list of strings")


if __name__ == "__main__":
    signals.watch()
    sys.exit(guarded(stack, sys.argv[1:]))
