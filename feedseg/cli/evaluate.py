"""`feedseg evaluate` and `figures`: scores of label images, pictures of a network at work."""

import argparse
from pathlib import Path

from feedseg.cli.values import add_label_reading, names
from feedseg.runtime import console


def add_verbs(verbs) -> None:
    _add_evaluate(verbs)
    _add_figures(verbs)


def _add_evaluate(verbs) -> None:
    verb = verbs.add_parser(
        "evaluate", help="score label images of any tool against the ground truth"
    )
    verb.set_defaults(action=_evaluate)
    # fmt: off
    option = verb.add_argument
    option("--pred", type=Path, nargs="+", action="extend", required=True,
           help="predicted label images, folder or file; further ones are compared with the first")
    option("--truth", type=Path, required=True, help="true label images, a folder or a file")
    option("--classes", default="", help="class names in the order of their ids: a,b,c")
    option("--membrane", help="class that separates cells: adds Rand and information scores")
    option("--tolerance", type=float, default=2.0,
           help="tolerance of the boundary F-score in px (2)")
    add_label_reading(verb)
    option("--output", type=Path, help="folder for scores.csv and scores.json")


def _add_figures(verbs) -> None:
    verb = verbs.add_parser(
        "figures", help="visualize the rounds, filters or attention of a network"
    )
    verb.set_defaults(action=_figures)
    # fmt: off
    option = verb.add_argument
    option("run", type=Path, help="run directory")
    option("--output", type=Path, help="folder for the figures (RUN/figures)")
    option("--input", type=Path, help="image file to use instead of the test images")
    option("--count", type=int, default=3, help="number of test images")
    option("--pixel", type=_pixel, action="append", default=[],
           help="pixel y,x whose attention map is drawn")
    option("--rounds", type=int, default=0, help="number of feedback rounds (0: as in training)")
    option("--checkpoint", choices=("best", "latest"), default="best", help="checkpoint of the run")


def _pixel(text: str) -> tuple[int, int]:
    y, x = map(int, text.split(","))
    return y, x


def _evaluate(args: argparse.Namespace) -> int:
    from feedseg.evaluation import compare, folders

    several = len(args.pred) > 1
    score = compare.compare_folders if several else folders.evaluate_folders
    score(
        args.pred if several else args.pred[0],
        args.truth,
        class_names=names(args.classes) or None,
        membrane=args.membrane,
        tolerance=args.tolerance,
        interpret=args.interpret,
        fill_missing=args.fill_missing,
        output=args.output,
    )
    return 0


def _figures(args: argparse.Namespace) -> int:
    from feedseg.experiments.feedback_figures import figures

    files = figures(
        args.run,
        args.output,
        image=args.input,
        count=args.count,
        pixels=args.pixel,
        rounds=args.rounds,
        checkpoint=args.checkpoint,
    )
    console.say("\n".join(map(str, files)))
    return 0
