"""The physical size of a pixel, as microscopes and Fiji leave it in TIFF files."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import tifffile

from feedseg.io import ngff
from feedseg.io.tiff import strictly

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


def read_calibration(path: Path) -> Calibration | None:
    """Pixel size from OME, ImageJ or plain TIFF tags or OME-Zarr; None where a file states none.

    A plain TIFF at 72 dots per inch states a screen's default, not a microscope's.
    Raises BadImage for a damaged TIFF or OME-Zarr.
    """
    path = Path(path)
    if ngff.is_zarr(path):
        return _ngff_calibration(ngff.find(path))
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None

    def work(tif: tifffile.TiffFile):
        if tif.is_ome:
            return _ome_calibration(tif.ome_metadata or "")
        return _tag_calibration(tif)

    return strictly(path, work)


def _ngff_calibration(layout: ngff.Layout) -> Calibration | None:
    if layout.axes is None or layout.scale is None:
        return None
    sizes = dict(zip(layout.axes, layout.scale, strict=True))
    units = dict(zip(layout.axes, layout.units, strict=True))
    unit = units["x"]
    if not unit or units["y"] != unit:
        return None
    spacing = sizes["z"] if units.get("z") == unit else None
    found = _calibration(sizes["y"], sizes["x"], symbol(unit) or unit, spacing)
    return found and found._replace(frame_interval=_interval(sizes.get("t"), units.get("t")))


def _ome_calibration(xml: str) -> Calibration | None:
    pixels = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", xml)
    fields = (
        dict(re.findall(r'((?:PhysicalSize|TimeInc)\w+)="([^"]*)"', pixels.group(1)))
        if pixels
        else {}
    )
    unit = fields.get("PhysicalSizeXUnit", "µm")
    if fields.get("PhysicalSizeYUnit", "µm") != unit:
        return None
    spacing = fields.get("PhysicalSizeZ") if fields.get("PhysicalSizeZUnit", "µm") == unit else None
    found = _calibration(fields.get("PhysicalSizeY"), fields.get("PhysicalSizeX"), unit, spacing)
    interval = _interval(fields.get("TimeIncrement"), fields.get("TimeIncrementUnit", "s"))
    return found and found._replace(frame_interval=interval)


def _tag_calibration(tif: tifffile.TiffFile) -> Calibration | None:
    page = tif.pages.first
    across, down = page.tags.valueof(282), page.tags.valueof(283)
    if not across or not down or 0 in (*across, *down):
        return None
    width, height = across[1] / across[0], down[1] / down[0]
    kind = int(page.tags.valueof(296, 2))
    info = tif.imagej_metadata or {}
    unit = _unescape(str(info.get("unit", ""))) or {2: "inch", 3: "cm"}.get(kind, "")
    if not unit or unit == "pixel" or (unit == "inch" and math.isclose(width, 1 / 72)):
        return None
    found = _calibration(height, width, unit, info.get("spacing"))
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


def _calibration(height, width, unit, spacing) -> Calibration | None:
    """The calibration, or None unless the pixel sizes are positive finite numbers."""
    try:
        height, width = float(height), float(width)
        spacing = None if spacing is None else float(spacing)
    except (TypeError, ValueError):
        return None
    if not (0 < height < math.inf and 0 < width < math.inf):
        return None
    if spacing is not None and not 0 < spacing < math.inf:
        spacing = None
    return Calibration(height, width, unit, spacing)
