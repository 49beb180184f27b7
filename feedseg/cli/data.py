"""`feedseg check`, `fetch` and `doctor`: the images, public data sets, the installation."""

import argparse
import os
from pathlib import Path

from feedseg.cli import arguments


def add_verbs(verbs) -> None:
    """Add the verbs and their options."""
    verb = verbs.add_parser("check", help="check a folder of images and labels before training")
    verb.set_defaults(action=check)
    verb.add_argument("data", type=Path, help="folder of images and labels")
    verb.add_argument(
        "--output", type=Path, default=Path("feedseg-check"),
        help="folder for the overlays and the configuration (feedseg-check)",
    )  # fmt: skip
    verb.add_argument("--label-map", default="", help='grey value to class id, "0:0,255:1"')
    verb.add_argument("--classes", default="", help="class names in the order of their ids, a,b,c")

    verb = verbs.add_parser("fetch", help="download a public data set and verify it")
    verb.set_defaults(action=fetch)
    verb.add_argument("name", help="name of the data set")
    verb.add_argument(
        "--data-dir", type=Path, help="folder to download to (FEEDSEG_DATA, else ./data)"
    )

    verb = verbs.add_parser("doctor", help="check the installation and the devices")
    verb.set_defaults(action=doctor)


def check(args: argparse.Namespace) -> int:
    """Check a folder of the user's images; returns the exit code."""
    from feedseg.datasets.tools.check import check

    names = arguments.names(args.classes)
    return check(args.data, output=args.output, map_text=args.label_map, classes=names)


def fetch(args: argparse.Namespace) -> int:
    """Download a data set; returns the exit code."""
    from feedseg.datasets.tools.fetch import fetch

    root = args.data_dir or Path(os.environ.get("FEEDSEG_DATA", "") or "data")
    print(f"{args.name}: {fetch(args.name, root)}")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Check the installation; returns the exit code."""
    from feedseg.runtime.doctor import doctor

    return doctor()
