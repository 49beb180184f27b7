"""The `feedseg` command: one file per group of verbs, a verb's options beside its use."""

import argparse
import sys
from collections.abc import Sequence

import feedseg
from feedseg.cli import data, evaluate, experiments, export, predict
from feedseg.main import train
from feedseg.runtime import large_pages
from feedseg.runtime.errors import guarded


def parser() -> argparse.ArgumentParser:
    """The verbs and their options; each verb's `action` takes the parsed arguments."""
    top = argparse.ArgumentParser(prog="feedseg", description=feedseg.__doc__)
    top.add_argument("--version", action="version", version=f"feedseg {feedseg.__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser(
        "train",
        help="train and evaluate: feedseg train --config configs/aep_irpe.py [--config.key=value]",
        add_help=False,
    )
    for group in (predict, export, evaluate, data, experiments):
        group.add_verbs(verbs)
    return top


def run(argv: Sequence[str]) -> int:
    """Exit code of a command line without the program's name."""
    if argv[:1] == ["train"]:
        return train(list(argv[1:]))
    top = parser()
    args, rest = top.parse_known_args(argv)
    changes = [each.removeprefix("--config.") for each in rest if each.startswith("--config.")]
    if len(changes) < len(rest) or (changes and not hasattr(args, "overrides")):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    args.overrides = changes
    return args.action(args)


def main() -> None:
    """Entry of the console script."""
    large_pages.request()
    sys.exit(guarded(run, sys.argv[1:]))
