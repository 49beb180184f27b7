"""`feedseg evaluate` and `figures`: scores of label images, and what a network does inside."""

import argparse
from pathlib import Path

from feedseg.cli import arguments


def add_verbs(verbs) -> None:
    """Add the verbs and their options."""
    verb = verbs.add_parser("evaluate", help="score label images of any tool against the truth")
    verb.set_defaults(action=evaluate)
    verb.add_argument(
        "--pred", type=Path, nargs="+", action="extend", required=True,
        help="folder or file of predicted labels; several are compared with the first",
    )  # fmt: skip
    verb.add_argument("--truth", type=Path, required=True, help="folder or file of true labels")
    verb.add_argument("--classes", default="", help="class names in the order of their ids, a,b,c")
    verb.add_argument(
        "--membrane", help="class between cells: adds Rand scores and variation of information"
    )
    verb.add_argument(
        "--tolerance", type=float, default=2.0, help="tolerance of the boundary F-score, px (2)"
    )
    verb.add_argument("--output", type=Path, help="folder for scores.csv and scores.json")

    verb = verbs.add_parser("figures", help="draw the rounds, attention or filters of a network")
    verb.set_defaults(action=figures)
    verb.add_argument("run", type=Path, help="run directory")
    verb.add_argument("--output", type=Path, help="folder for the figures (RUN/figures)")
    verb.add_argument("--input", type=Path, help="an image file, instead of the run's test images")
    verb.add_argument("--count", type=int, default=3, help="number of test images")
    verb.add_argument(
        "--pixel", type=_pixel, action="append", default=[],
        help="y,x: draw the attention of this pixel",
    )  # fmt: skip
    verb.add_argument("--rounds", type=int, default=0, help="number of rounds (0: as trained)")
    arguments.add_checkpoint(verb)


def _pixel(text: str) -> tuple[int, int]:
    y, x = map(int, text.split(","))
    return y, x


def evaluate(args: argparse.Namespace) -> int:
    """Score one folder, or compare several; returns the exit code."""
    from feedseg.evaluation import compare, folders

    several = len(args.pred) > 1
    score = compare.compare_folders if several else folders.evaluate_folders
    score(
        args.pred if several else args.pred[0],
        args.truth,
        class_names=arguments.names(args.classes) or None,
        membrane=args.membrane,
        tolerance=args.tolerance,
        output=args.output,
    )
    return 0


def figures(args: argparse.Namespace) -> int:
    """Draw the figures of a run; returns the exit code."""
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
    print("\n".join(map(str, files)))
    return 0
