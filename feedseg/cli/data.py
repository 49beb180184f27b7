"""`feedseg check`, `fetch` and `doctor`: data sets and the installation."""

import argparse
import os
from pathlib import Path

from feedseg.cli.values import add_reading, names, read_options
from feedseg.runtime import console


def add_verbs(verbs) -> None:
    verb = verbs.add_parser("check", help="check a folder of images and labels")
    verb.set_defaults(action=_check)
    # fmt: off
    option = verb.add_argument
    option("data", type=Path, help="folder of images and labels")
    option("--output", type=Path, default=Path("feedseg-check"),
           help="folder for the overlays and the fingerprint")
    option("--label-map", default="", help='mapping from gray values to class ids: "0:0,255:1"')
    option("--classes", default="", help="class names in the order of their ids: a,b,c")
    option("--group", default="", metavar="PATTERN",
           help='regular expression for file names whose images belong together: "(P[0-9]+)_"')
    option("--convert", type=Path, metavar="FOLDER",
           help="new folder for images and class masks made of ImageJ ROIs, COCO, labelme or "
           "QuPath GeoJSON files, which is checked then; later shapes cover earlier ones")
    option("--unlabeled", "--unlabelled", choices=("background", "void"), default="background",
           help="what --convert makes of pixels without a shape: the first class, or void (255)")
    option("--channels", default="",
           help="image channels that are read, by number from 1 or by name: 2, DAPI or 3,1")
    add_reading(verb)

    verb = verbs.add_parser("fetch", help="download a public data set and verify its checksums")
    verb.set_defaults(action=_fetch)
    # fmt: off
    option = verb.add_argument
    option("name", help="name of the data set")
    option("--data-dir", type=Path, help="parent folder (environment FEEDSEG_DATA, else ./data)")

    verb = verbs.add_parser("doctor", help="check the installation and the devices")
    verb.set_defaults(action=_doctor)


def _check(args: argparse.Namespace) -> int:
    from feedseg.datasets.tools.check import check
    from feedseg.datasets.tools.convert import convert

    data, classes, how = args.data, names(args.classes), read_options(args)
    if args.convert:
        convert(data, args.convert, classes=classes, unlabeled=args.unlabeled, how=how)
        data, classes = args.convert, ()  # which names its classes
    named = dict(map_text=args.label_map, classes=classes, group=args.group)
    return check(data, output=args.output, **named, how=how)


def _fetch(args: argparse.Namespace) -> int:
    from feedseg.datasets.tools.fetch import fetch

    root = args.data_dir or Path(os.environ.get("FEEDSEG_DATA", "") or "data")
    console.say(f"{args.name}: {fetch(args.name, root)}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from feedseg.runtime.doctor import doctor

    return doctor()
