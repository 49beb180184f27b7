"""`feedseg export`, `ensemble` and `models`: models as files."""

import argparse
from pathlib import Path

from feedseg.runtime import console
from feedseg.runtime.errors import UserError

CARD = {
    "description": "purpose of the model in one line",
    "licence": "license of the weights, an SPDX identifier",
    "data_licence": "license of the training images",
    "citation": "reference to cite",
    "limits": "known limitations: where the model should not be used",
}


def add_verbs(verbs) -> None:
    _add_export(verbs)
    _add_ensemble(verbs)
    verb = verbs.add_parser(
        "models", help="list the bundled models, or show the model card of one of them"
    )
    verb.set_defaults(action=_models)
    # fmt: off
    option = verb.add_argument
    option("name", nargs="?", default="", help="name of a bundled model, or model file")
    option("--picture", type=Path, metavar="FILE.png",
           help="draw the model's test image and its segmentation to this file")


def _add_export(verbs) -> None:
    verb = verbs.add_parser("export", help="write the model of a run to a single file")
    verb.set_defaults(action=_export)
    # fmt: off
    option = verb.add_argument
    option("run", type=Path,
           help="run directory; other formats than .feedseg.zip also take a model file or name")
    option("--to", type=Path, required=True,
           help="NAME.feedseg.zip, NAME.onnx, NAME.stablehlo.zip or NAME.bioimageio.zip")
    option("--tile", type=int, default=0,
           help="fixed input size in px (0: any); not for .feedseg.zip")
    _add_card(verb)
    option("--authors", default="", help="authors of the model: A. Name; B. Name")
    option("--pixel-type", choices=("uint8", "uint16", "float32"), default="",
           help="pixel type of the input images, for .bioimageio.zip (uint8)")
    option("--example", type=Path, metavar="IMAGE",
           help="image whose center is stored as test input and cover picture")
    _add_source(verb)


def _add_ensemble(verbs) -> None:
    verb = verbs.add_parser("ensemble", help="combine several models into one file")
    verb.set_defaults(action=_ensemble)
    # fmt: off
    option = verb.add_argument
    option("models", nargs="+", metavar="MODEL",
           help="run directory, folder of runs, model file, or model name")
    option("--to", type=Path, required=True, help="NAME.feedseg.zip")
    option("--learn", action="store_true",
           help="learn the member weights (AWEL) on the runs' validation images")
    _add_card(verb)
    _add_source(verb)


def _add_card(verb: argparse.ArgumentParser) -> None:
    for key, text in CARD.items():
        verb.add_argument(f"--{key.replace('_', '-')}", default="", help=text)


def _add_source(verb: argparse.ArgumentParser) -> None:
    # fmt: off
    option = verb.add_argument
    option("--checkpoint", choices=("best", "latest"), default="best", help="checkpoint of a run")
    option("--overwrite", action="store_true", help="replace an existing file")


def _card(args: argparse.Namespace, *more: str) -> dict[str, str]:
    return {key: value for key in (*CARD, *more) if (value := getattr(args, key))}


def _export(args: argparse.Namespace) -> int:
    from feedseg.export.export import export

    text = export(
        args.run,
        args.to,
        _card(args, "authors"),
        example=args.example,
        checkpoint=args.checkpoint,
        overwrite=args.overwrite,
        tile=args.tile,
        pixel_type=args.pixel_type,
    )
    console.say(text)
    return 0


def _ensemble(args: argparse.Namespace) -> int:
    from feedseg.export import ensemble

    options = dict(learn=args.learn, checkpoint=args.checkpoint, overwrite=args.overwrite)
    console.say(ensemble.make(args.models, args.to, _card(args), **options))
    console.say(f"wrote {args.to}; use it with predict --model {args.to}")
    return 0


def _models(args: argparse.Namespace) -> int:
    from feedseg.inference import bundled

    if not args.name:
        if args.picture:
            raise UserError(f"--picture {args.picture}: name a model before it")
        console.say(bundled.listing() or "no models are bundled with this installation")
        return 0
    from feedseg.export import model_card
    from feedseg.inference import loading, model_file

    path = bundled.find(args.name)
    console.say(bundled.card(model_file.read_manifest(path)))
    if args.picture:
        console.say(f"picture        {model_card.picture(path, args.picture)}")
    deviation = loading.verify(path)
    valid = deviation <= loading.TOLERANCE
    console.say(
        f"test image     deviates from the stored probabilities by {deviation:.1g}, "
        f"{'within' if valid else 'OUTSIDE'} the tolerance of {loading.TOLERANCE:g}"
    )
    return 0 if valid else 1
