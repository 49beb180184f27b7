"""The `feedseg` command: one verb per job, each calling one module."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from feedseg.cli import options
from feedseg.main import train
from feedseg.runtime import large_pages
from feedseg.runtime.errors import UserError, guarded


def _predict(args: argparse.Namespace) -> int:
    from feedseg.inference.predict import predict

    files = predict(
        args.model if len(args.model) > 1 else args.model[0],
        args.input,
        args.output,
        channels=_numbers(args.channels),
        probabilities=args.probabilities,
        uncertainty=args.uncertainty,
        overlay=args.overlay,
        tables=args.tables,
        instances=_instances(args),
        form=args.format,
        overwrite=args.overwrite,
        tile=args.tile,
        checkpoint=args.checkpoint,
        dihedral=args.dihedral,
        rotations=args.rotations,
        rounds=args.rounds,
        backend=args.backend,
    )
    print(f"wrote {len(files)} file(s) in {args.output}" if files else "all of it is there already")
    return 0


def _instances(args: argparse.Namespace):
    from feedseg.inference.outputs.instances import InstanceSpec

    if args.instances and args.instances_between:
        raise UserError("--instances and --instances-between: give one of them")
    name = args.instances or args.instances_between
    if not name and (args.watershed or args.min_area):
        raise UserError("--watershed and --min-area are about --instances or --instances-between")
    if args.min_area < 0:
        raise UserError(f"--min-area {args.min_area}: must not be below 0")
    method = "watershed" if args.watershed else "components"
    return InstanceSpec(name, bool(args.instances_between), method, args.min_area) if name else None


def _export(args: argparse.Namespace) -> int:
    from feedseg.export import export

    keys = (*options.CARD, "authors")
    card = {key: getattr(args, key) for key in keys if getattr(args, key)}
    how = dict(checkpoint=args.checkpoint, overwrite=args.overwrite, tile=args.tile)
    how["pixel_type"] = args.pixel_type
    print(export.export(args.run, args.to, card, example=args.example, **how))
    return 0


def _ensemble(args: argparse.Namespace) -> int:
    from feedseg.export import ensemble

    card = {key: getattr(args, key) for key in options.CARD if getattr(args, key)}
    how = dict(learn=args.learn, checkpoint=args.checkpoint, overwrite=args.overwrite)
    print(ensemble.make(args.models, args.to, card, **how))
    print(f"wrote {args.to}; use it with predict --model {args.to}")
    return 0


def _models(args: argparse.Namespace) -> int:
    from feedseg.inference import bundled

    if not args.name:
        if args.picture:
            raise UserError(f"--picture {args.picture}: of which model? Name one before it")
        print(bundled.listing() or "no models come with this installation")
        return 0
    from feedseg.export import model_card
    from feedseg.inference import loading, model_file

    path = bundled.find(args.name)
    print(bundled.card(model_file.read_manifest(path)))
    if args.picture:
        print(f"picture        {model_card.picture(path, args.picture)}")
    off = loading.verify(path)
    print(f"its test image gives the stored probabilities to {off:.1g}: ", end="")
    print("as it should be" if off <= loading.TOLERANCE else "NOT the same model here")
    return 0 if off <= loading.TOLERANCE else 1


def _evaluate(args: argparse.Namespace) -> int:
    from feedseg.evaluation import compare, folders

    several = len(args.pred) > 1
    score = compare.compare_folders if several else folders.evaluate_folders
    score(
        args.pred if several else args.pred[0],
        args.truth,
        class_names=_names(args.classes) or None,
        membrane=args.membrane,
        tolerance=args.tolerance,
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
    print("\n".join(map(str, files)))
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from feedseg.experiments.reproduce import Choice, reproduce

    sys.path.insert(0, str(Path.cwd()))  # the configurations lie beside the command
    choice = Choice(
        rows=_names(args.rows),
        data=_names(args.data),
        folds=_numbers(args.folds),
        seeds=_numbers(args.seeds),
        recipe=args.recipe,
        overrides=tuple(args.overrides),
    )
    return reproduce(
        args.table,
        choice,
        args.root,
        jobs=args.jobs,
        devices=_names(args.devices),
        together=_at_least_one("--together", args.together),
        plan_file=args.plan,
        only_collect=args.collect,
        output=args.output,
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, _names(text)))
    except ValueError:
        raise UserError(f"{text!r}: whole numbers, separated by commas") from None


def _at_least_one(option: str, number: int) -> int:
    if number < 1:
        raise UserError(f"{option} {number}: at least 1")
    return number


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


def _check(args: argparse.Namespace) -> int:
    from feedseg.datasets.tools.check import check

    names = _names(args.classes)
    return check(args.data, output=args.output, map_text=args.label_map, classes=names)


def _fetch(args: argparse.Namespace) -> int:
    from feedseg.datasets.tools.fetch import fetch

    root = args.data_dir or Path(os.environ.get("FEEDSEG_DATA", "") or "data")
    print(f"{args.name}: {fetch(args.name, root)}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from feedseg.runtime.doctor import doctor

    return doctor()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


ACTIONS = {
    "predict": _predict,
    "export": _export,
    "ensemble": _ensemble,
    "models": _models,
    "evaluate": _evaluate,
    "figures": _figures,
    "check": _check,
    "reproduce": _reproduce,
    "report": _report,
    "fetch": _fetch,
    "doctor": _doctor,
}


def run(argv: Sequence[str]) -> int:
    """Exit code of a command line without the program's name."""
    if argv[:1] == ["train"]:
        return train(list(argv[1:]))
    top = options.parser()
    args, rest = top.parse_known_args(argv)
    changes = [each.removeprefix("--config.") for each in rest if each.startswith("--config.")]
    if len(changes) < len(rest) or (changes and args.verb != "reproduce"):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    args.overrides = changes
    return ACTIONS[args.verb](args)


def main() -> None:
    """Entry of the console script."""
    large_pages.request()
    sys.exit(guarded(run, sys.argv[1:]))
