"""How tifffile is asked for OME-TIFF: axes, pixel sizes, names of channels and of classes."""

import uuid
from collections.abc import Sequence
from pathlib import Path

from feedseg.io.calibration import Calibration, symbol
from feedseg.runtime import escape

NAMES, COLORS = "feedseg/class-names", "feedseg/class-colors"


def form(
    path: Path, axes: str, calibration: Calibration | None, large: bool = True, **metadata
) -> dict:
    """Arguments of `tifffile.imwrite`; path: whose name the image gets; large: 64-bit offsets.

    A unit that OME does not know would make the file invalid; such sizes are left out. The same
    arguments give the same bytes: the identifier that OME wants is made of them.
    """
    sizes = {}
    unit = calibration and symbol(calibration.unit)
    if unit:
        sizes = {
            "X": calibration.pixel_width,
            "Y": calibration.pixel_height,
            "Z": calibration.spacing if "Z" in axes else None,
        }
    for axis, size in sizes.items():
        if size:
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    if calibration and calibration.frame_interval and "T" in axes:
        metadata |= {"TimeIncrement": calibration.frame_interval, "TimeIncrementUnit": "s"}
    metadata |= {"axes": axes, "Name": escape.visible(Path(path).name)}
    metadata["UUID"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, repr(metadata))}"
    return {"ome": True, "bigtiff": large, "metadata": metadata}


def classes(class_names: Sequence[str], class_colors: Sequence[tuple[int, int, int]]) -> dict:
    """Names and colors of the class ids as annotations of the image: two tables of keys."""
    names = {str(index): escape.visible(name) for index, name in enumerate(class_names)}
    colors = {str(i): "#{:02X}{:02X}{:02X}".format(*color) for i, color in enumerate(class_colors)}
    return {
        "Channel": {"Name": ["classes"]},
        "MapAnnotation": [
            {"Namespace": NAMES, "Value": names},
            {"Namespace": COLORS, "Value": colors},
        ],
    }
