"""`feedseg predict`: label images of a trained model."""

import argparse
from pathlib import Path

from feedseg.cli import arguments
from feedseg.io.writers.formats import formats
from feedseg.runtime.errors import UserError


def add_verbs(verbs) -> None:
    """Add the verb and its options."""
    verb = verbs.add_parser("predict", help="segment images with a trained model")
    verb.set_defaults(action=run)
    verb.add_argument(
        "--model", required=True, nargs="+", action="extend",
        help="run directory, model file, or a name of `feedseg models`; several are averaged",
    )  # fmt: skip
    verb.add_argument(
        "--input", type=Path, nargs="+", required=True, help='images, folders, "patterns/*.tif"'
    )
    verb.add_argument("--output", type=Path, required=True, help="folder for the results")
    verb.add_argument(
        "--format", choices=tuple(formats()), default="tiff",
        help="file format of the label images (tiff)",
    )  # fmt: skip
    verb.add_argument(
        "--channels", default="",
        help="image channels passed to the network, counted from 1: 2 or 3,1",
    )  # fmt: skip
    verb.add_argument(
        "--probabilities", metavar="TYPE", nargs="?", const="float32", default="",
        help="also write class probabilities as float32, float16 or uint8 (255 times)",
    )  # fmt: skip
    verb.add_argument("--overwrite", action="store_true", help="replace existing results")
    verb.add_argument("--tile", type=int, default=0, help="tile side in px (0: automatic)")
    arguments.add_checkpoint(verb)
    verb.add_argument(
        "--dihedral", action="store_true",
        help="test-time augmentation: average 8 rotations and mirrors (8 times slower)",
    )  # fmt: skip
    verb.add_argument(
        "--rotations", type=int, default=0,
        help="test-time augmentation: average this many rotations by equal angles",
    )  # fmt: skip
    verb.add_argument(
        "--rounds", type=int, default=0, help="rounds of a feedback network (0: as trained)"
    )
    verb.add_argument(
        "--backend", choices=("jax", "onnx"), default="",
        help="library that computes; onnx reads .onnx files and needs no JAX",
    )  # fmt: skip
    verb.add_argument(
        "--uncertainty", action="store_true",
        help="also write how far rounds, members or orientations disagree, in bits",
    )  # fmt: skip
    verb.add_argument("--overlay", action="store_true", help="also write a PNG tinted by class")
    verb.add_argument(
        "--tables", action="store_true",
        help="also write CSV files: area of each class, and every connected component",
    )  # fmt: skip
    verb.add_argument(
        "--instances", metavar="CLASS", default="",
        help="also write single objects: connected components of this class",
    )  # fmt: skip
    verb.add_argument(
        "--instances-between", metavar="CLASS", default="",
        help="also write single objects: regions that this class separates",
    )  # fmt: skip
    verb.add_argument(
        "--watershed", action="store_true", help="split touching instances at their necks"
    )
    verb.add_argument("--min-area", type=int, default=0, help="smallest area of an instance, px")


def run(args: argparse.Namespace) -> int:
    """Write the results; returns the exit code."""
    from feedseg.inference.predict import predict

    files = predict(
        args.model if len(args.model) > 1 else args.model[0],
        args.input,
        args.output,
        channels=arguments.numbers(args.channels),
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
        raise UserError("--watershed and --min-area need --instances or --instances-between")
    if args.min_area < 0:
        raise UserError(f"--min-area {args.min_area}: must not be negative")
    method = "watershed" if args.watershed else "components"
    between = bool(args.instances_between)
    return InstanceSpec(name, between, method, args.min_area) if name else None
