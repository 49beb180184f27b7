"""The physical size of a pixel, as microscopes and Fiji leave it in TIFF files."""

import html
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import tifffile

from feedseg.io import appearance, bioio_rows, ngff
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.tiff import SUFFIXES, main_series, series_number, strictly
from feedseg.runtime.notes import note

# Lengths: how OME abbreviates them, how OME-NGFF calls them.
_LENGTHS = {
    "pm": "picometer",
    "Å": "angstrom",
    "nm": "nanometer",
    "µm": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "in": "inch",
}
_NAMES = {name: short for short, name in _LENGTHS.items()}
_OTHERS = {"micron": "µm", "microns": "µm", "um": "µm", "\u03bcm": "µm"} | _NAMES
_SECONDS = {"msec": 1e-3, "ms": 1e-3, "sec": 1, "s": 1, "min": 60, "h": 3600, "hour": 3600} | {
    "millisecond": 1e-3,
    "second": 1,
    "minute": 60,
}


class Calibration(NamedTuple):
    """Physical size of a pixel."""

    pixel_height: float  # in `unit`
    pixel_width: float  # in `unit`
    unit: str  # e.g. "micron", "nm", "inch"
    spacing: float | None = None  # distance of two pages in `unit`
    frame_interval: float | None = None  # s between two times


def symbol(unit: str) -> str | None:
    """OME's abbreviation of a unit of length, e.g. "µm" of "micron"; None if it knows none."""
    short = _OTHERS.get(unit, unit)
    return short if short in _LENGTHS else None


_MICROMETERS = {"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_MICROMETERS["in"] = 25400.0


def micrometers(calibration: Calibration | None) -> float | None:
    """Height of a pixel in micrometers; None where it or its unit is not known."""
    unit = _MICROMETERS.get(symbol(calibration.unit) or "") if calibration else None
    return calibration.pixel_height * unit if unit else None


def ngff_unit(unit: str) -> str | None:
    """OME-NGFF's name of a unit of length, e.g. "micrometer"; None if it knows none."""
    return _LENGTHS.get(symbol(unit) or "")


def read_calibration(path: Path, how: ReadOptions = AS_STATED) -> Calibration | None:
    """Pixel size from OME, ImageJ or plain TIFF tags or OME-Zarr; None where a file states none.

    Sizes in different units come in that of X. One that is stated for X or Y alone is taken for
    both, and what cannot be understood is left out; both are said. A plain TIFF at 72 dots per inch
    states a screen's default, not a microscope's. how: the pixels are read; height and width change
    places with an image that is turned.
    Raises BadImage for a damaged TIFF or OME-Zarr.
    """
    path = Path(path)
    if ngff.is_zarr(path):
        return _ngff_calibration(path, ngff.find(path, how.series))
    if path.suffix.lower() in bioio_rows.SUFFIXES:
        return _in_micrometers(path, *bioio_rows.BioRows(path, how.series).pixel_um)
    if path.suffix.lower() not in SUFFIXES:
        return None

    def work(tif: tifffile.TiffFile):
        if tif.is_ome:
            number = series_number(tif, main_series(path, tif, how)) if how.series else 0
            return _ome_calibration(path, tif.ome_metadata or "", number)
        if tif.is_lsm:
            return _lsm_calibration(path, tif.lsm_metadata or {})
        if tif.is_svs:
            side = re.search(r"\bMPP\s*=\s*([0-9.]+)", tif.pages.first.description)
            return side and _in_micrometers(path, side[1], side[1])
        found = _tag_calibration(path, tif)
        if found and appearance.orientation(tif.pages.first, how) >= 5:
            return found._replace(pixel_height=found.pixel_width, pixel_width=found.pixel_height)
        return found

    return strictly(path, work)


def _ngff_calibration(path: Path, layout: ngff.Layout) -> Calibration | None:
    if layout.axes is None or layout.scale is None:
        return None
    sizes = dict(zip(layout.axes, layout.scale, strict=True))
    units = dict(zip(layout.axes, layout.units, strict=True))
    if not any(units.get(axis) for axis in "yx"):
        return None
    units = {axis: symbol(unit or "") or unit for axis, unit in units.items()}
    stated = {axis: (sizes.get(axis), units.get(axis)) for axis in "yxz" if units.get(axis)}
    found = _calibration(path, {axis: stated.get(axis, (None, "")) for axis in "yxz"})
    return found and found._replace(frame_interval=_interval(sizes.get("t"), units.get("t")))


def _in_micrometers(path: Path, height, width, spacing=None) -> Calibration | None:
    sizes = {"y": height, "x": width, "z": spacing}
    return _calibration(path, {axis: (size, "µm") for axis, size in sizes.items()})


def _lsm_calibration(path: Path, facts: dict) -> Calibration | None:
    """Of Zeiss LSM, which states meters."""
    sizes = (1e6 * float(facts.get(f"VoxelSize{axis}") or 0) or None for axis in "YXZ")
    found = _in_micrometers(path, *sizes)
    return found and found._replace(frame_interval=_interval(facts.get("TimeIntervall"), "s"))


def _ome_calibration(path: Path, xml: str, number: int) -> Calibration | None:
    """Of the image of this number."""
    images = list(re.finditer(r"<(?:\w+:)?Pixels\b([^>]*)>", xml))
    pixels = images[number] if number < len(images) else None
    fields = (
        dict(re.findall(r'((?:PhysicalSize|TimeInc)\w+)="([^"]*)"', pixels.group(1)))
        if pixels
        else {}
    )
    sizes = {axis: fields.get(f"PhysicalSize{axis.upper()}") for axis in "yxz"}
    units = {axis: fields.get(f"PhysicalSize{axis.upper()}Unit", "µm") for axis in "yxz"}
    found = _calibration(path, {axis: (sizes[axis], html.unescape(units[axis])) for axis in "yxz"})
    interval = _interval(fields.get("TimeIncrement"), fields.get("TimeIncrementUnit", "s"))
    return found and found._replace(frame_interval=interval)


def _tag_calibration(path: Path, tif: tifffile.TiffFile) -> Calibration | None:
    page = tif.pages.first
    across, down = page.tags.valueof(282), page.tags.valueof(283)
    width, height = (each and 0 not in each and each[1] / each[0] for each in (across, down))
    kind = int(page.tags.valueof(296, 2))
    info = tif.imagej_metadata or {}
    unit = _unescape(str(info.get("unit", ""))) or {2: "inch", 3: "cm"}.get(kind, "")
    if not unit or unit == "pixel" or not (width or height):
        return None
    if unit == "inch" and math.isclose(width or height, 1 / 72):
        return None
    stated = {"y": (height, unit), "x": (width, unit), "z": (info.get("spacing"), unit)}
    found = _calibration(path, stated)
    interval = _interval(info.get("finterval"), info.get("tunit", "sec"))
    return found and found._replace(frame_interval=interval)


def _interval(time, unit) -> float | None:
    """Seconds between two times; None for what is no time, or without a unit that is known."""
    try:
        interval = float(time) * _SECONDS.get(str(unit), 0)
    except (TypeError, ValueError):
        return None
    return interval if 0 < interval < math.inf else None


def _unescape(unit: str) -> str:
    """ImageJ writes the micro sign as backslash, u, 00B5."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), unit)


def _calibration(path: Path, stated: dict[str, tuple[Any, str]]) -> Calibration | None:
    """The calibration of sizes and units as stated for y, x and z; None without one of y and x."""
    unit = stated["x"][1] if stated["x"][0] not in (None, False) else stated["y"][1]
    sizes = {axis: _size(path, axis, *each, unit) for axis, each in stated.items()}
    height, width = sizes["y"], sizes["x"]
    if not (height or width):
        return None
    if not (height and width):
        known, other = ("X", "Y") if width else ("Y", "X")
        note(
            "one pixel size",
            f"{path}: states the size of a pixel in {known} alone, {width or height:g} {unit}; "
            f"it is taken for {other} too",
        )
    return Calibration(height or width, width or height, unit, sizes["z"])


def _size(path: Path, axis: str, value, unit: str, wanted: str) -> float | None:
    """A stated size in the wanted unit; None if there is none, or if it cannot be understood."""
    if value in (None, False):
        return None
    factor = 1.0 if unit == wanted else _factor(unit, wanted)
    try:
        size = float(value) * factor
    except (TypeError, ValueError):
        size = math.nan
    if 0 < size < math.inf:
        return size
    what = f"the size of a pixel in {axis.upper()}, {value} {unit}"
    note(f"size in {axis}", f"{path}: {what}, is not understood and left out")
    return None


def _factor(unit: str, wanted: str) -> float:
    """What lengths in `unit` are multiplied by; NaN where one of both is not known."""
    have, want = (_MICROMETERS.get(symbol(each) or "", math.nan) for each in (unit, wanted))
    return have / want
