"""Which pixels of a file are read, and how, where it can mean two things or holds several."""

import math
import re
from typing import NamedTuple

import numpy as np

from feedseg.runtime.errors import BadImage, UserError

INTERPRETATIONS = ("auto", "stored", "displayed")
FEW = 4  # channels that a shape without axes may end in


class ReadOptions(NamedTuple):
    """axes: letters of the file's axes, Y and X, C for channels, others (P, T, Z) for pages; empty:
    as the file states them. interpret: `displayed` turns images by their orientation, inverts gray
    values stored as MinIsWhite and applies palettes, `stored` does none of it, `auto` decides by
    the program that wrote the file (`appearance.of`). fill_missing: chunks of an OME-Zarr that
    have no file are its fill value; else they are an error, since a copy in part has none either.
    channels: numbers from 1 and names, in the order in which they are wanted; none: all. series:
    number from 1 or name of the image in a file that holds several. z: of a stack, one slice "N",
    some "FIRST-LAST", from 1, or "max", the largest value of each pixel. channel_files: endings of
    names, such as _0000 and _0001: a file that ends in the first is stacked, channel after channel,
    with those beside it that end in the others.
    """

    axes: str = ""
    interpret: str = "auto"
    fill_missing: bool = False
    channels: tuple[int | str, ...] = ()
    series: str = ""
    z: str = ""
    channel_files: tuple[str, ...] = ()

    def checked(self) -> "ReadOptions":
        """Itself. Raises UserError for axes without Y and X, what repeats, or unknown words."""
        axes = self.axes.upper()
        if axes and (len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes)):
            raise UserError(f"axes {self.axes!r}: name each once, Y and X among them, such as CYX")
        if not set(axes) <= set("PTZCSYX"):
            raise UserError(f"axes {self.axes!r}: use Y, X, C (channels), and P, T or Z (pages)")
        if self.interpret not in INTERPRETATIONS:
            choices = ", ".join(INTERPRETATIONS)
            raise UserError(f"interpret {self.interpret!r}: choose one of {choices}")
        if self.z and self.z != "max":
            slices(self.z)
        endings = self.channel_files
        if endings and (len(set(endings)) < max(2, len(endings)) or any("/" in e for e in endings)):
            raise UserError(
                f"channel files {','.join(endings)!r}: endings of at least two files' names, each "
                "once, such as _0000,_0001"
            )
        return self._replace(axes=axes)

    def stated(self) -> list[object]:
        """What decides the pixels; equal to that of earlier versions where they had the same.

        The channels are not among them.
        """
        later = {"series": self.series, "z": self.z, "channel_files": list(self.channel_files)}
        fill = ["fill_missing"] if self.fill_missing else []
        return [self.axes, self.interpret, *fill, *([k, v] for k, v in later.items() if v)]

    def keys(self) -> dict[str, object]:
        """The configuration keys of the data that are not as in `AS_STATED`."""
        plain = self._asdict() | {
            "channels": ",".join(map(str, self.channels)),
            "channel_files": ",".join(self.channel_files),
        }
        usual = {"interpret": "auto"}
        return {key: value for key, value in plain.items() if value and value != usual.get(key)}


AS_STATED = ReadOptions()


def label_options(how: ReadOptions) -> ReadOptions:
    """For the labels of images read so: what is chosen of the images is not in their labels."""
    return ReadOptions(interpret=how.interpret, fill_missing=how.fill_missing)


def listed(text: str) -> tuple[int | str, ...]:
    """Numbers and names of a list such as `2`, `DAPI` or `3,DAPI`."""
    names = (name.strip() for name in text.split(","))
    return tuple(int(name) if name.isdecimal() else name for name in names if name)


def slices(z: str) -> tuple[int, int]:
    """First and last of `N` or `FIRST-LAST`, from 1. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", z)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UserError(f"z {z!r}: a slice such as 3, some such as 2-5, counted from 1, or max")
    return first, last


def named(where: object, axes: str, shape: tuple[int, ...]) -> str:
    """The axes, checked against a shape. Raises BadImage where their number differs."""
    if len(axes) != len(shape):
        raise BadImage(f"{where}: axes {axes} name {len(axes)}, its shape {shape} has {len(shape)}")
    return axes


def guessed(where: object, shape: tuple[int, ...], channels: int = 0) -> str:
    """Axes of an array that states none: YX, YXC for 1, 3 or 4 channels, PYX, PYXC.

    channels: that are expected, 0: unknown; a last axis of so many (but 1) is the channels.
    Raises BadImage for a shape that may mean two things.
    """
    if len(shape) == 2:
        return "YX"
    if len(shape) == 4:
        return "PYXC"
    if len(shape) != 3:
        raise BadImage(f"{where}: shape {shape} is not that of an image or a stack of images")
    if shape[2] in (1, 3, 4) or (channels > 1 and shape[2] == channels):
        return "YXC"
    if shape[2] <= FEW < shape[0] or (channels > 1 and shape[0] == channels):
        other = "CYX" if shape[0] == channels else "YXC"
        raise BadImage(
            f"{where}: shape {shape} can mean pages or channels; name its axes: --axes {other} or "
            "PYX, axes= in Python"
        )
    return "PYX"


def to_pages(array: np.ndarray, axes: str) -> np.ndarray:
    """Array [P, H, W, C] from one with these axes: S or C are channels, all but Y and X pages."""
    channels = [i for i, axis in enumerate(axes) if axis in "SC"]
    y, x = axes.index("Y"), axes.index("X")
    pages = [i for i in range(array.ndim) if i not in (y, x, *channels)]
    moved = array.transpose(*pages, y, x, *channels)
    sizes = (math.prod(array.shape[i] for i in pages), array.shape[y], array.shape[x])
    return moved.reshape(*sizes, math.prod(array.shape[i] for i in channels))
