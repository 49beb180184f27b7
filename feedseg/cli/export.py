"""`feedseg export`, `ensemble` and `models`: trained models as files."""

import argparse
from pathlib import Path

from feedseg.cli import arguments
from feedseg.runtime.errors import UserError

CARD = {
    "description": "what the model is for, in one line",
    "licence": "license of the weights, an SPDX name",
    "data_licence": "license of the training images",
    "citation": "what to cite",
    "limits": "where the model should not be used",
}


def add_verbs(verbs) -> None:
    """Add the verbs and their options."""
    verb = verbs.add_parser("export", help="write the model of a run as one file")
    verb.set_defaults(action=export)
    verb.add_argument(
        "run", type=Path, help="run directory; for .feedseg.zip also a model file or name"
    )
    verb.add_argument(
        "--to", type=Path, required=True,
        help="NAME.feedseg.zip, NAME.onnx, NAME.stablehlo.zip or NAME.bioimageio.zip",
    )  # fmt: skip
    verb.add_argument(
        "--tile", type=int, default=0,
        help="fixed image side of the program, px (0: any); not for .feedseg.zip",
    )  # fmt: skip
    _add_card(verb)
    verb.add_argument("--authors", default="", help="authors of the model: A. Name; B. Name")
    verb.add_argument(
        "--pixel-type", choices=("uint8", "uint16", "float32"), default="",
        help="pixel type of the images that a .bioimageio.zip is for (uint8)",
    )  # fmt: skip
    verb.add_argument(
        "--example", type=Path, metavar="IMAGE", help="image whose middle becomes the test image"
    )
    arguments.add_checkpoint(verb)
    verb.add_argument("--overwrite", action="store_true", help="replace an existing file")

    verb = verbs.add_parser("ensemble", help="join several models in one file, and what it gains")
    verb.set_defaults(action=ensemble)
    verb.add_argument(
        "models", nargs="+", metavar="MODEL", help="run, folder of runs, model file or name"
    )
    verb.add_argument("--to", type=Path, required=True, help="NAME.feedseg.zip")
    verb.add_argument(
        "--learn", action="store_true", help="learn weights on the runs' validation images (AWEL)"
    )
    _add_card(verb)
    arguments.add_checkpoint(verb)
    verb.add_argument("--overwrite", action="store_true", help="replace an existing file")

    verb = verbs.add_parser("models", help="list the bundled models, or show a model's card")
    verb.set_defaults(action=models)
    verb.add_argument("name", nargs="?", default="", help="name of a model, or a model file")
    verb.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="draw its test image and classes there"
    )


def _add_card(verb: argparse.ArgumentParser) -> None:
    for key, text in CARD.items():
        verb.add_argument(f"--{key.replace('_', '-')}", default="", help=text)


def _card(args: argparse.Namespace, *more: str) -> dict[str, str]:
    return {key: getattr(args, key) for key in (*CARD, *more) if getattr(args, key)}


def export(args: argparse.Namespace) -> int:
    """Write one model; returns the exit code."""
    from feedseg.export.export import export

    report = export(
        args.run,
        args.to,
        _card(args, "authors"),
        example=args.example,
        checkpoint=args.checkpoint,
        overwrite=args.overwrite,
        tile=args.tile,
        pixel_type=args.pixel_type,
    )
    print(report)
    return 0


def ensemble(args: argparse.Namespace) -> int:
    """Write an ensemble; returns the exit code."""
    from feedseg.export.ensemble import make

    options = dict(learn=args.learn, checkpoint=args.checkpoint, overwrite=args.overwrite)
    print(make(args.models, args.to, _card(args), **options))
    print(f"wrote {args.to}; use it with predict --model {args.to}")
    return 0


def models(args: argparse.Namespace) -> int:
    """List the bundled models, or show and verify one; returns the exit code."""
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
    deviation = loading.verify(path)
    valid = deviation <= loading.TOLERANCE
    print(
        f"test image     deviates from the stored probabilities by {deviation:.1g}, "
        f"{'within' if valid else 'OUTSIDE'} the tolerance of {loading.TOLERANCE:g}"
    )
    return 0 if valid else 1
