"""Tables of what lies in an image: sizes and places of objects as CSV, calibrated."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from feedseg.inference.outputs.run_lengths import Components
from feedseg.io.calibration import Calibration
from feedseg.runtime import tables
from feedseg.runtime.files import write_atomically


def shape(part: Components, height: int, width: int, calibration: Calibration | None) -> dict:
    """Columns of one object on a page of height x width px.

    area_px; centroid_x_px, centroid_y_px; bbox_x_px, bbox_y_px (first column and row),
    bbox_width_px, bbox_height_px of the bounding box; touches_border, 1 if it reaches an outermost
    row or column, else 0; calibrated images have area and centroid in their unit too.
    As in Fiji x runs to the right, y down, and the origin is the upper left *corner* of the
    page: the center of the first pixel is (0.5, 0.5), in pixels.
    """
    top = part.first // width
    x, y = (total / part.area + 0.5 for total in (part.sum_x, part.sum_y))
    at_border = not (part.left and top and part.right < width and part.bottom < height)
    row = {**area(part.area, calibration), "centroid_x_px": x, "centroid_y_px": y}
    if calibration:
        unit = unit_name(calibration.unit)
        row[f"centroid_x_{unit}"] = x * calibration.pixel_width
        row[f"centroid_y_{unit}"] = y * calibration.pixel_height
    return row | {
        "bbox_x_px": part.left,
        "bbox_y_px": top,
        "bbox_width_px": part.right - part.left,
        "bbox_height_px": part.bottom - top,
        "touches_border": int(at_border),
    }


def area(pixels: int, calibration: Calibration | None) -> dict:
    """Column(s) of an area: in px, and where it is calibrated in the square of its unit."""
    if calibration is None:
        return {"area_px": pixels}
    pixel = calibration.pixel_width * calibration.pixel_height
    return {"area_px": pixels, f"area_{unit_name(calibration.unit)}2": pixels * pixel}


def unit_name(unit: str) -> str:
    """A unit of length in plain ASCII letters and digits, as it stands in column names."""
    unit = unit.strip().replace("Å", "angstrom").replace("\u212b", "angstrom")
    unit = re.sub(r"^[µμ]", "u", unit)
    plain = unicodedata.normalize("NFKD", unit).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    micron = plain.lower() in ("micron", "microns", "micrometer", "micrometre", "um")
    return "um" if micron else plain or "unit"


def table_paths(stem: Path) -> tuple[Path, Path]:
    """Where the tables of an image are written: `<stem>_classes.csv` and `<stem>_objects.csv`."""
    return stem.with_name(f"{stem.name}_classes.csv"), stem.with_name(f"{stem.name}_objects.csv")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """A CSV file: UTF-8, commas, decimal points, a header; numbers to 12 digits.

    It appears when whole. Raises SaveFailed naming the file if it cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            tables.write_csv(stream, columns, rows, lambda value: float(f"{value:.12g}"))

    write_atomically(path, write)
