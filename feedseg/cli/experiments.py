"""`feedseg reproduce` and `report`: published tables, and reports of finished runs."""

import argparse
from pathlib import Path

from feedseg.cli.values import names, numbers
from feedseg.runtime.errors import UserError


def add_verbs(verbs) -> None:
    _add_reproduce(verbs)
    _add_report(verbs)


def _add_reproduce(verbs) -> None:
    verb = verbs.add_parser("reproduce", help="train the runs of a published table and compare")
    verb.set_defaults(action=_reproduce)
    # fmt: off
    option = verb.add_argument
    option("table", help="fbu-t1 ... fbu-t4, fba-t1 ... aep-t1 ... aep-fig12, blood")
    option("--rows", default="", help="only these rows: a,b")
    option("--data", default="", help="only these data sets: irpe,isbi2012-noise")
    option("--folds", default="", help="only these folds, counted from 0")
    option("--seeds", default="", help="only these seeds, counted from 0")
    option("--recipe", choices=("paper", "modern"), default="paper",
           help="training recipe: the paper's, or the best one known here")
    option("--root", type=Path, default=Path("runs/reproduce"), help="parent folder of the runs")
    option("--output", type=Path, help="folder for the table (the root)")
    option("--jobs", type=int, default=1, help="number of parallel processes")
    option("--devices", default="", help="GPUs to use, one process on each: 0,1,2")
    option("--together", type=int, default=1,
           help="number of folds and seeds of a row to train in one program")
    option("--plan", type=Path, help="only write the list of runs to this file, for launch/")
    option("--collect", action="store_true", help="only write the table of the finished runs")


def _add_report(verbs) -> None:
    verb = verbs.add_parser(
        "report", help="tables, figures and significance tests of finished runs"
    )
    verb.set_defaults(action=_report)
    # fmt: off
    option = verb.add_argument
    option("runs", nargs="+", type=Path, metavar="RUN", help="run directory, or folder of runs")
    option("--output", type=Path, default=Path("report"), help="output folder (report)")
    option("--metric", choices=("iou", "dice"), default="iou", help="score to report")
    option("--by", choices=("method", "run"), default="method",
           help="average over the folds and seeds of a method, or list every run")
    option("--baseline", default="", help="method that all others are tested against")
    option("--images", type=int, default=3, help="number of test images shown (0: none)")
    option("--every-output", action="store_true",
           help="list the other scored outputs (first, rounds/0, dihedral, ...) as methods too")
    option("--rename", type=_renaming, action="append", default=[], metavar="METHOD=NAME",
           help="display name of a method")


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not (equals and old and new):
        raise argparse.ArgumentTypeError(f"{text!r}: expected METHOD=NAME")
    return old, new


def _reproduce(args: argparse.Namespace) -> int:
    from feedseg.experiments.reproduce import Choice, reproduce

    if args.together < 1:
        raise UserError(f"--together {args.together}: must be at least 1")
    choice = Choice(
        rows=names(args.rows),
        data=names(args.data),
        folds=numbers(args.folds),
        seeds=numbers(args.seeds),
        recipe=args.recipe,
        overrides=tuple(args.overrides),
    )
    return reproduce(
        args.table,
        choice,
        args.root,
        jobs=args.jobs,
        devices=names(args.devices),
        together=args.together,
        plan_file=args.plan,
        only_collect=args.collect,
        output=args.output,
    )


def _report(args: argparse.Namespace) -> int:
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
