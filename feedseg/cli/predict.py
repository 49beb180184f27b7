"""`feedseg predict`."""

import argparse
from pathlib import Path

from feedseg.cli.values import add_reading, read_options, value_range
from feedseg.io.writers.formats import formats
from feedseg.runtime import console
from feedseg.runtime.errors import UserError


def add_verbs(verbs) -> None:
    verb = verbs.add_parser("predict", help="segment images with a trained model")
    verb.set_defaults(action=_predict)
    # fmt: off
    option = verb.add_argument
    option("--model", required=True, nargs="+", action="extend",
           help="run directory, model file, or name from `feedseg models`; several are averaged")
    option("--input", type=Path, nargs="+", required=True,
           help='image files, folders, or quoted patterns such as "images/*.tif"')
    option("--output", type=Path, required=True, help="output folder")
    option("--format", choices=tuple(formats()), default="tiff",
           help="file format of the label images")
    option("--channels", default="",
           help="image channels passed to the model, by number from 1 or by name: 2, DAPI or 3,1")
    option("--probabilities", metavar="TYPE", nargs="?", const="float32", default="",
           help="write class probabilities as float32 (default), float16 or uint8 (scaled by 255)")
    option("--overwrite", action="store_true", help="replace existing results")
    option("--tile", type=int, default=0, help="tile size in px (0: automatic)")
    option("--checkpoint", choices=("best", "latest"), default="best", help="checkpoint of a run")
    option("--dihedral", action="store_true",
           help="test-time augmentation: average over 8 rotations and mirrorings (8 times slower)")
    option("--rotations", type=int, default=0,
           help="test-time augmentation: average over this many equally spaced rotations")
    option("--rounds", type=int, default=0, help="number of feedback rounds (0: as in training)")
    option("--scale", type=float,
           help="size of the images for the network: 0.5 halves them, results keep their size; 1: "
                "as they are (default: by the pixel sizes of image and training, where both are "
                "known and differ by more than 10 %%)")
    option("--normalization", default="", metavar="RULE",
           help="of gray values, instead of the model's: image_percentile, channel_percentile, "
                "dtype_range")
    option("--range", default="", metavar="LOW-HIGH",
           help="gray values that become black and white, for example 0-4095 for 12 bit")
    add_reading(verb)
    option("--backend", choices=("jax", "onnx"), default="",
           help="inference backend; onnx runs .onnx files without JAX")
    _add_outputs(verb)


def _add_outputs(verb: argparse.ArgumentParser) -> None:
    """Options that ask for further output files."""
    # fmt: off
    option = verb.add_argument
    option("--uncertainty", action="store_true",
           help="write the disagreement of the averaged predictions per pixel, in bits")
    option("--overlay", action="store_true", help="write a PNG of the image tinted by class")
    option("--tables", action="store_true",
           help="write CSV tables of class areas and connected components")
    option("--instances", metavar="CLASS", default="",
           help="write an instance label image: connected components of this class")
    option("--instances-between", metavar="CLASS", default="",
           help="write an instance label image: regions that this class separates")
    option("--watershed", action="store_true", help="split touching instances by a watershed")
    option("--min-area", type=int, default=0, help="smallest instance area in px")


def _predict(args: argparse.Namespace) -> int:
    from feedseg.inference.predict import predict

    files = predict(
        args.model if len(args.model) > 1 else args.model[0],
        args.input,
        args.output,
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
        normalization=args.normalization,
        value_range=value_range(args.range),
        scale=args.scale,
        **read_options(args)._asdict(),
    )
    console.say(
        f"wrote {len(files)} file(s) in {args.output}" if files else "all results exist already"
    )
    return 0


def _instances(args: argparse.Namespace):
    from feedseg.inference.outputs.instances import InstanceSpec

    if args.instances and args.instances_between:
        raise UserError("--instances and --instances-between exclude each other; give one of them")
    name = args.instances or args.instances_between
    if not name and (args.watershed or args.min_area):
        raise UserError("--watershed and --min-area need --instances or --instances-between")
    if args.min_area < 0:
        raise UserError(f"--min-area {args.min_area}: must not be negative")
    method = "watershed" if args.watershed else "components"
    return InstanceSpec(name, bool(args.instances_between), method, args.min_area) if name else None
