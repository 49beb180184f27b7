"""The physical size of a pixel, as microscopes and Fiji leave it in TIFF files."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import tifffile

from feedseg.tiff import strictly


class Calibration(NamedTuple):
    """Physical size of a pixel."""

    pixel_height: float  # in `unit`
    pixel_width: float  # in `unit`
    unit: str  # e.g. "micron", "nm", "inch"
    spacing: float | None = None  # distance of two pages in `unit`


def read_calibration(path: Path) -> Calibration | None:
    """Pixel size from OME, ImageJ or plain TIFF tags; None where a file states none.

    A plain TIFF at 72 dots per inch states a screen's default, not a microscope's.
    Raises BadImage for a damaged TIFF.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None

    def work(tif: tifffile.TiffFile):
        if tif.is_ome:
            return _ome_calibration(tif.ome_metadata or "")
        return _tag_calibration(tif)

    return strictly(path, work)


def _ome_calibration(xml: str) -> Calibration | None:
    pixels = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", xml)
    fields = dict(re.findall(r'(PhysicalSize\w+)="([^"]*)"', pixels.group(1))) if pixels else {}
    unit = fields.get("PhysicalSizeXUnit", "µm")
    if fields.get("PhysicalSizeYUnit", "µm") != unit:
        return None
    spacing = fields.get("PhysicalSizeZ") if fields.get("PhysicalSizeZUnit", "µm") == unit else None
    return _calibration(fields.get("PhysicalSizeY"), fields.get("PhysicalSizeX"), unit, spacing)


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
    return _calibration(height, width, unit, info.get("spacing"))


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
