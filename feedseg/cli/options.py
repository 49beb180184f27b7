"""The verbs of the `feedseg` command and what can be said to each."""

import argparse
from pathlib import Path

import feedseg

CARD = {
    "description": "what the model is for, in a line",
    "licence": "of the weights, an SPDX name",
    "data_licence": "of the images it was trained on",
    "citation": "what to cite",
    "limits": "where it should not be used",
}


def _pixel(text: str) -> tuple[int, int]:
    y, x = map(int, text.split(","))
    return y, x


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not (equals and old and new):
        raise argparse.ArgumentTypeError(f"{text!r}: METHOD=NAME is expected")
    return old, new


def parser() -> argparse.ArgumentParser:
    """Verbs and their options."""
    top = argparse.ArgumentParser(prog="feedseg", description=feedseg.__doc__)
    top.add_argument("--version", action="version", version=f"feedseg {feedseg.__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    verbs.add_parser(
        "train",
        help="train and evaluate: feedseg train --config configs/aep_irpe.py [--config.key=value]",
        add_help=False,
    )

    verb = verbs.add_parser("predict", help="segment images with a trained model")
    verb.add_argument(
        "--model", required=True, nargs="+", action="extend",
        help="run directory, model file, or a name of `feedseg models`; several are averaged",
    )  # fmt: skip
    verb.add_argument(
        "--input", type=Path, nargs="+", required=True, help='images, folders, "patterns/*.tif"'
    )
    verb.add_argument("--output", type=Path, required=True, help="folder for the results")
    verb.add_argument(
        "--format", choices=("tiff", "ome-tiff", "ome-zarr"), default="tiff", help="of the labels"
    )
    verb.add_argument(
        "--channels", default="", help="channels of the images to be seen, counted from 1: 2 or 3,1"
    )
    verb.add_argument(
        "--probabilities", metavar="TYPE", nargs="?", const="float32", default="",
        help="write probabilities too: float32, float16 or uint8 (255 times)",
    )  # fmt: skip
    verb.add_argument("--overwrite", action="store_true", help="replace results that exist")
    verb.add_argument("--tile", type=int, default=0, help="side seen at once in px (0: automatic)")
    verb.add_argument("--checkpoint", choices=("best", "latest"), default="best")
    verb.add_argument(
        "--dihedral", action="store_true", help="average 8 rotations and mirrors (8 times slower)"
    )
    verb.add_argument(
        "--rotations", type=int, default=0, help="average so many rotations by equal angles"
    )
    verb.add_argument(
        "--rounds", type=int, default=0, help="rounds of a network with feedback (0: as trained)"
    )
    verb.add_argument(
        "--backend", choices=("jax", "onnx"), default="", help="onnx: of .onnx files, without JAX"
    )
    verb.add_argument(
        "--uncertainty", action="store_true", help="also how far its answers disagree, in bits"
    )
    verb.add_argument("--overlay", action="store_true", help="also a PNG tinted by class")
    verb.add_argument(
        "--tables", action="store_true", help="also CSV files: areas, and every connected part"
    )
    verb.add_argument(
        "--instances", metavar="CLASS", default="", help="also single objects: parts of this class"
    )
    verb.add_argument(
        "--instances-between", metavar="CLASS", default="", help="or what this class separates"
    )
    verb.add_argument("--watershed", action="store_true", help="cut instances at their necks")
    verb.add_argument("--min-area", type=int, default=0, help="of an instance, px")

    verb = verbs.add_parser("export", help="the model of a run as one file, to share and to keep")
    verb.add_argument(
        "run", type=Path, help="run directory; but for .feedseg.zip also a model file or name"
    )
    verb.add_argument(
        "--to", type=Path, required=True,
        help="NAME.feedseg.zip, NAME.onnx, NAME.stablehlo.zip or NAME.bioimageio.zip",
    )  # fmt: skip
    verb.add_argument(
        "--tile", type=int, default=0, help="not of .feedseg.zip: the only side, px (0: any)"
    )
    for key, text in CARD.items():
        verb.add_argument(f"--{key.replace('_', '-')}", default="", help=text)
    verb.add_argument("--authors", default="", help="who made the model: A. Name; B. Name")
    verb.add_argument(
        "--pixel-type", choices=("uint8", "uint16", "float32"), default="",
        help="of .bioimageio.zip: of the images it is for (uint8)",
    )  # fmt: skip
    verb.add_argument(
        "--example", type=Path, metavar="IMAGE", help="whose middle goes along as proof and picture"
    )
    verb.add_argument("--checkpoint", choices=("best", "latest"), default="best")
    verb.add_argument("--overwrite", action="store_true", help="replace a file that exists")

    verb = verbs.add_parser("ensemble", help="several models as one, and what it gains")
    verb.add_argument(
        "models", nargs="+", metavar="MODEL", help="run, folder of runs, model file or name"
    )
    verb.add_argument("--to", type=Path, required=True, help="NAME.feedseg.zip")
    verb.add_argument(
        "--learn", action="store_true", help="weights from the runs' validation images (AWEL)"
    )
    for key, text in CARD.items():
        verb.add_argument(f"--{key.replace('_', '-')}", default="", help=text)
    verb.add_argument("--checkpoint", choices=("best", "latest"), default="best")
    verb.add_argument("--overwrite", action="store_true", help="replace a file that exists")

    verb = verbs.add_parser("models", help="the models that come with feedseg, or one's card")
    verb.add_argument("name", nargs="?", default="", help="a name, or a model file: its card")
    verb.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="draw its test image and classes there"
    )

    verb = verbs.add_parser("evaluate", help="score label images of any tool against the truth")
    verb.add_argument(
        "--pred", type=Path, nargs="+", action="extend", required=True,
        help="folder or file of predicted labels; several are compared with the first",
    )  # fmt: skip
    verb.add_argument("--truth", type=Path, required=True, help="folder or file of true labels")
    verb.add_argument("--classes", default="", help="names in the order of their ids, a,b,c")
    verb.add_argument("--membrane", help="class between cells: adds Rand and information scores")
    verb.add_argument(
        "--tolerance", type=float, default=2.0, help="of the boundary F-score, px (2)"
    )
    verb.add_argument("--output", type=Path, help="folder for scores.csv and scores.json")

    verb = verbs.add_parser("figures", help="draw what a network with feedback or filters does")
    verb.add_argument("run", type=Path, help="run directory")
    verb.add_argument("--output", type=Path, help="folder for the figures (RUN/figures)")
    verb.add_argument("--input", type=Path, help="an image file, instead of the run's test images")
    verb.add_argument("--count", type=int, default=3, help="number of test images")
    verb.add_argument(
        "--pixel", type=_pixel, action="append", default=[], help="y,x whose attention is drawn"
    )
    verb.add_argument("--rounds", type=int, default=0, help="rounds (0: as trained)")
    verb.add_argument("--checkpoint", choices=("best", "latest"), default="best")

    verb = verbs.add_parser("check", help="look through a folder of images and labels")
    verb.add_argument("data", type=Path, help="folder of images and labels")
    verb.add_argument("--output", type=Path, default=Path("feedseg-check"))
    verb.add_argument("--label-map", default="", help='grey value to class id, "0:0,255:1"')
    verb.add_argument("--classes", default="", help="names in the order of their ids, a,b,c")

    verb = verbs.add_parser("reproduce", help="a published table: its runs, our numbers beside it")
    verb.add_argument("table", help="fbu-t1 ... fbu-t4, fba-t1 ... aep-t1 ... aep-fig12, blood")
    verb.add_argument("--rows", default="", help="some rows, a,b")
    verb.add_argument("--data", default="", help="some data sets, irpe,isbi2012-noise")
    verb.add_argument("--folds", default="", help="some folds, counted from 0")
    verb.add_argument("--seeds", default="", help="some initial values, counted from 0")
    verb.add_argument("--recipe", choices=("paper", "modern"), default="paper")
    verb.add_argument("--root", type=Path, default=Path("runs/reproduce"), help="of all runs")
    verb.add_argument("--output", type=Path, help="folder for the table (the root)")
    verb.add_argument("--jobs", type=int, default=1, help="runs at once")
    verb.add_argument("--devices", default="", help="GPUs, a run on each: 0,1,2")
    verb.add_argument(
        "--together", type=int, default=1, help="folds and seeds of a row trained as one program"
    )
    verb.add_argument("--plan", type=Path, help="only write the runs to this file, for launch/")
    verb.add_argument("--collect", action="store_true", help="only the table of what is done")

    verb = verbs.add_parser("report", help="tables, figures and tests of finished runs")
    verb.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them"
    )
    verb.add_argument("--output", type=Path, default=Path("report"), help="folder (report)")
    verb.add_argument("--metric", choices=("iou", "dice"), default="iou")
    verb.add_argument(
        "--by", choices=("method", "run"), default="method", help="mean over folds and seeds or not"
    )
    verb.add_argument("--baseline", default="", help="method that the others are tested against")
    verb.add_argument("--images", type=int, default=3, help="test images shown (0: none)")
    verb.add_argument(
        "--every-output", action="store_true", help="also first, rounds/0, dihedral, ... as methods"
    )
    verb.add_argument(
        "--rename", type=_renaming, action="append", default=[], metavar="METHOD=NAME"
    )

    verb = verbs.add_parser("fetch", help="download a public data set and verify it")
    verb.add_argument("name", help="name of the data set")
    verb.add_argument("--data-dir", type=Path, help="where to; else FEEDSEG_DATA, else ./data")

    verb = verbs.add_parser("doctor", help="check the installation and the devices")
    return top
