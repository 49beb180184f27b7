"""The `feedseg` command. A file of this folder defines a group of verbs and their options."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import feedseg
from feedseg.cli import data, evaluate, experiments, export, predict
from feedseg.main import train
from feedseg.runtime import escape, large_pages, signals
from feedseg.runtime.errors import guarded, leave
from feedseg.runtime.files import require_folder, require_room

_FOLDERS = {"output", "root", "data_dir", "convert"}  # options that name what is written
_FILES = {"to", "plan", "picture"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(escape.visible(message))  # it quotes what was given, such as names of files


def parser() -> argparse.ArgumentParser:
    """All verbs with their options; each sets `action`, the function that runs it."""
    top = _Parser(prog="feedseg", description=feedseg.__doc__)
    top.add_argument("--version", action="version", version=f"feedseg {feedseg.__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser(
        "train",
        help="train and evaluate; `feedseg train --help` lists the configurations",
        add_help=False,
    )
    for group in (predict, export, evaluate, experiments, data):
        group.add_verbs(verbs)
    return top


def run(argv: Sequence[str]) -> int:
    """Run a command line without the program's name; returns the exit code."""
    if argv[:1] == ["train"]:
        return train(list(argv[1:]))
    top = parser()
    args, rest = top.parse_known_args(argv)
    overrides = [text.removeprefix("--config.") for text in rest if text.startswith("--config.")]
    if len(overrides) < len(rest) or (overrides and args.verb != "reproduce"):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    args.overrides = overrides
    _require_folders(args)
    return args.action(args)


def _require_folders(args: argparse.Namespace) -> None:
    """UserError before any work where what a verb writes has no place; see `runtime.files`."""
    for name in _FOLDERS & vars(args).keys():
        if getattr(args, name):
            require_folder(getattr(args, name))
    for name in _FILES & vars(args).keys():
        if getattr(args, name):
            require_folder(getattr(args, name).parent)
            require_room(getattr(args, name))


def main() -> None:
    """Entry of the console script."""
    large_pages.request()
    signals.watch() if sys.argv[1:2] == ["train"] else signals.watch_interrupt()
    leave(guarded(run, sys.argv[1:]))
