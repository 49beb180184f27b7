"""Option values that several verbs share: comma-separated lists and ranges."""

import argparse
import re

from feedseg.io.reading import ReadOptions, listed
from feedseg.runtime.errors import UserError


def names(text: str) -> tuple[str, ...]:
    """The names of a list such as `a,b,c`; empty ones are left out."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str) -> tuple[int, ...]:
    """The integers of a list such as `0,1,2`. Raises UserError for anything else."""
    try:
        return tuple(map(int, names(text)))
    except ValueError:
        raise UserError(f"{text!r}: expected integers separated by commas") from None


def value_range(text: str) -> tuple[float, ...]:
    """The two numbers of a range such as `0-4095` or `-1.5-3`; () of an empty text.

    Raises UserError for anything else.
    """
    if not text:
        return ()
    number = r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)"
    match = re.fullmatch(f"{number}-{number}", text.replace(" ", ""), re.IGNORECASE)
    try:
        return float(match[1]), float(match[2])
    except (TypeError, ValueError):
        raise UserError(f"{text!r}: expected a range such as 0-4095") from None


def add_reading(verb: argparse.ArgumentParser) -> None:
    """Options on how image files are read; see `read_options`."""
    # fmt: off
    option = verb.add_argument
    option("--axes", default="",
           help="axes of TIFF and .npy files, where they do not state them: YXC, CYX, PYX, ...")
    option("--series", "--scene", default="", metavar="N|NAME",
           help="image of a file that holds several, by number from 1 or by name")
    option("--z", default="", metavar="N|N-N|max",
           help="slices of a stack, counted from 1, or max, their largest values")
    option("--channel-files", default="", metavar="ENDINGS",
           help="channels in files of their own, told by the endings of their names: _0000,_0001")
    # fmt: on
    add_label_reading(verb)


def read_options(args: argparse.Namespace) -> ReadOptions:
    """What `add_reading` and `--channels` say. Raises UserError as `ReadOptions.checked`."""
    return ReadOptions(
        axes=args.axes,
        interpret=args.interpret,
        fill_missing=args.fill_missing,
        channels=listed(args.channels),
        series=args.series,
        z=args.z,
        channel_files=names(args.channel_files),
    ).checked()


def add_label_reading(verb: argparse.ArgumentParser) -> None:
    """Those on how images and labels alike are read."""
    verb.add_argument(
        "--interpret",
        default="auto",
        help="whether images are turned, inverted (MinIsWhite) and colored as their file says: "
        "auto (by the program that wrote it), stored (not) or displayed (always)",
    )
    verb.add_argument(
        "--fill-missing",
        action="store_true",
        help="read chunks of an OME-Zarr that have no file as its fill value",
    )
