"""What a TIFF or a picture says about how its pixels are to be shown: turned, inverted, colored.

    orientation      tag 274 of TIFF and EXIF, 1 to 8: which stored corner is the upper left one
    MinIsWhite       photometric interpretation 0: the lowest stored value is white
    palette          photometric interpretation 3: stored values are indices of colors

ImageJ and Bio-Formats write an inverting table or a colored one for the screen alone, and tifffile
calls every 1-bit image MinIsWhite; the values they store are those that count. Other programs mean
what the file says.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from feedseg.io.reading import ReadOptions
from feedseg.runtime.notes import note

ORIENTATION = 274  # tag


class Appearance(NamedTuple):
    """What is done to stored pixels. palette: [2^bits, 1 or 3], the values of each index."""

    orientation: int = 1
    inverted: bool = False
    palette: np.ndarray | None = None


def of(path: Path, file: tifffile.TiffFile, page, how: ReadOptions, label: bool) -> Appearance:
    """What is done to the pages of a TIFF file, said where it is not what is stored.

    page: the first; label: class ids, whose palette is for the screen alone.
    """
    if how.interpret == "stored":
        return Appearance()
    turn = orientation(page, how)
    measured = how.interpret == "auto" and _measured(file, page)
    inverted = _inverted(path, page, measured)
    palette = None if label else _palette(path, page, measured, how.interpret == "displayed")
    if turn > 1:
        say_turned(path, turn)
    return Appearance(turn, inverted, palette)


def orientation(page, how: ReadOptions) -> int:
    """How a TIFF page is to be turned, 1 (not) to 8."""
    tag = page.tags.get(ORIENTATION)
    known = tag and how.interpret != "stored" and 1 <= int(tag.value) <= 8
    return int(tag.value) if known else 1


def _measured(file: tifffile.TiffFile, page) -> bool:
    """Whether the program that wrote the file takes pixels as they are stored."""
    return file.is_imagej or file.is_ome or page.software.startswith("tifffile")


def _other(word: str) -> str:
    """The option that decides otherwise."""
    return f"--interpret {word} (in training --config.data.interpret={word})"


def say_turned(path: Path, turn: int) -> None:
    note(
        "orientation",
        f"{path}: turned as its orientation ({turn}) says; not so with {_other('stored')}",
    )


def _inverted(path: Path, page, measured: bool) -> bool:
    """Whether 0 is white and means it."""
    if page.photometric != tifffile.PHOTOMETRIC.MINISWHITE or page.dtype.kind not in "bu":
        return False
    if measured:
        note(
            "white kept",
            f"{path}: 0 is shown as white (MinIsWhite), but the program that wrote it counts "
            f"values as stored, and so they are taken; inverted with {_other('displayed')}",
        )
        return False
    return True


def _palette(path: Path, page, measured: bool, always: bool) -> np.ndarray | None:
    """The colors to be applied, gray ones as one channel, [2^bits, 1 or 3]."""
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colors = _native(np.asarray(page.colormap).T)
    luma = colors @ np.asarray([0.299, 0.587, 0.114])
    if not always and (measured or (np.diff(luma) >= 0).all()):
        note(
            "palette kept",
            f"{path}: its palette is one of brightness, values are taken as stored; "
            f"applied with {_other('displayed')}",
        )
        return None
    note("palette", f"{path}: its palette is applied; not with {_other('stored')}")
    return colors[:, :1] if (colors == colors[:, :1]).all() else colors


def _native(colors: np.ndarray) -> np.ndarray:
    """The 16-bit entries of a color map as 8 bit where they are 8-bit numbers."""
    for factor in (257, 256):
        if (colors % factor == 0).all():
            return (colors // factor).astype(np.uint8)
    return colors.astype(np.uint16)


def applied(
    path: Path, pixels: np.ndarray, seen: Appearance, label: bool, bits: int, interpret: str
) -> np.ndarray:
    """Pixels [..., H, W, C] inverted or colored; `turned` turns them. bits: of a stored value."""
    if seen.palette is not None:
        return seen.palette[pixels[..., 0]]
    if not seen.inverted:
        return pixels
    if pixels.dtype.kind == "b":
        _say_inverted(path)
        return ~pixels
    top = pixels.dtype.type(2**bits - 1)
    if label and interpret == "auto" and not np.isin(pixels, (0, top)).all():
        return pixels  # class ids
    _say_inverted(path)
    return top - pixels


def _say_inverted(path: Path) -> None:
    note(
        "white",
        f"{path}: 0 is white (MinIsWhite), so its values are inverted; not so with "
        f"{_other('stored')}",
    )


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [P, H, W, ...] as they are shown."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(1, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)
