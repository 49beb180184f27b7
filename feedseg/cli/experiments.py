"""`feedseg reproduce` and `report`: the runs of published tables, and reports of any runs."""

import argparse
import sys
from pathlib import Path

from feedseg.cli import arguments


def add_verbs(verbs) -> None:
    """Add the verbs and their options."""
    verb = verbs.add_parser("reproduce", help="make the runs of a published table and the table")
    verb.set_defaults(action=reproduce, overrides=[])
    verb.add_argument("table", help="fbu-t1 ... fbu-t4, fba-t1 ... aep-t1 ... aep-fig12, blood")
    verb.add_argument("--rows", default="", help="only these rows, a,b")
    verb.add_argument("--data", default="", help="only these data sets, irpe,isbi2012-noise")
    verb.add_argument("--folds", default="", help="only these folds, counted from 0")
    verb.add_argument("--seeds", default="", help="only these seeds, counted from 0")
    verb.add_argument(
        "--recipe", choices=("paper", "modern"), default="paper", help="training recipe (paper)"
    )
    verb.add_argument(
        "--root", type=Path, default=Path("runs/reproduce"), help="folder of all runs"
    )
    verb.add_argument("--output", type=Path, help="folder for the table (the root)")
    verb.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    verb.add_argument("--devices", default="", help="GPUs, one run on each: 0,1,2")
    verb.add_argument(
        "--together", type=int, default=1,
        help="number of folds and seeds of a row that train as one program",
    )  # fmt: skip
    verb.add_argument("--plan", type=Path, help="only write the runs to this file, for launch/")
    verb.add_argument("--collect", action="store_true", help="only write the table of what is done")

    verb = verbs.add_parser("report", help="write tables, figures and tests of finished runs")
    verb.set_defaults(action=report)
    verb.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them"
    )
    verb.add_argument(
        "--output", type=Path, default=Path("report"), help="folder for the report (report)"
    )
    verb.add_argument(
        "--metric", choices=("iou", "dice"), default="iou", help="score in the tables (iou)"
    )
    verb.add_argument(
        "--by", choices=("method", "run"), default="method",
        help="one row a method, the mean over its folds and seeds, or one row a run (method)",
    )  # fmt: skip
    verb.add_argument("--baseline", default="", help="method that the others are tested against")
    verb.add_argument("--images", type=int, default=3, help="number of test images shown (0: none)")
    verb.add_argument(
        "--every-output", action="store_true",
        help="count other outputs (first, rounds/0, dihedral, ...) as methods too",
    )  # fmt: skip
    verb.add_argument(
        "--rename", type=_renaming, action="append", default=[], metavar="METHOD=NAME",
        help="name of a method in the report",
    )  # fmt: skip


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not (equals and old and new):
        raise argparse.ArgumentTypeError(f"{text!r}: METHOD=NAME is expected")
    return old, new


def reproduce(args: argparse.Namespace) -> int:
    """Make a published table; returns the exit code."""
    from feedseg.experiments.reproduce import Choice, reproduce

    sys.path.insert(0, str(Path.cwd()))  # the configurations lie beside the command
    choice = Choice(
        rows=arguments.names(args.rows),
        data=arguments.names(args.data),
        folds=arguments.numbers(args.folds),
        seeds=arguments.numbers(args.seeds),
        recipe=args.recipe,
        overrides=tuple(args.overrides),
    )
    return reproduce(
        args.table,
        choice,
        args.root,
        jobs=args.jobs,
        devices=arguments.names(args.devices),
        together=arguments.at_least_one("--together", args.together),
        plan_file=args.plan,
        only_collect=args.collect,
        output=args.output,
    )


def report(args: argparse.Namespace) -> int:
    """Write a report; returns the exit code."""
    from feedseg.experiments.report import report

    return report(
        args.runs,
        args.output,
        metric=args.metric,
        by=args.by,
        baseline=args.baseline,
        images=args.images,
        every_output=args.every_output,
        rename=dict(args.rename),
    )
