"""Writing label and probability TIFFs that open in Fiji with colours, names and calibration.

Files are written beside their place and renamed, so a name never stands for half a file.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tifffile

from feedseg.calibration import Calibration
from feedseg.colors import VOID_COLOR
from feedseg.errors import UserError
from feedseg.tiff import one_line

CLASSIC_LIMIT = 2**32 - 2**25  # bytes, what fits a TIFF with 32-bit offsets


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write(temporary)` beside `path`, then a rename onto it.

    Raises UserError naming the file if it cannot be written; nothing is left behind then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); free space or choose another place"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _ascii(text: str) -> str:
    """ImageJ's description is 7-bit: other characters as backslash, u and four digits."""
    return "".join(c if ord(c) < 128 else f"\\u{ord(c):04X}" for c in text)


def _description(pages: int, calibration: Calibration | None) -> str:
    """ImageJ's text in the first page of a stack."""
    lines = ["ImageJ=1.11a", f"images={pages}"]
    if pages > 1:
        lines += [f"slices={pages}", "loop=false"]
    if calibration:
        lines.append(f"unit={_ascii(calibration.unit)}")
        if calibration.spacing:
            lines.append(f"spacing={calibration.spacing!r}")
    return "\n".join([*lines, "min=0.0", "max=255.0", ""])


def _resolution(calibration: Calibration | None) -> dict:
    """tifffile's arguments for pixels per unit."""
    if calibration is None:
        return {}
    per_unit = (1 / calibration.pixel_width, 1 / calibration.pixel_height)
    return {"resolution": per_unit, "resolutionunit": "NONE"}


def color_table(class_colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """RGB of all 256 values, [256, 3] uint8; values that are no class are grey."""
    table = np.full((256, 3), VOID_COLOR, np.uint8)
    table[: len(class_colors)] = class_colors
    return table


def write_labels(
    path: Path,
    labels: np.ndarray,
    class_names: Sequence[str],
    class_colors: Sequence[tuple[int, int, int]],
    calibration: Calibration | None = None,
) -> None:
    """8-bit ImageJ TIFF of class ids with the class colours as its look-up table.

    labels: [P, H, W] uint8 class ids. class_colors: RGB 0-255. Names stand in the slice labels
    and in Fiji's Image > Show Info. Lossless (zlib).
    Raises UserError if the file cannot be written, ValueError for labels of another form.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype != np.uint8:
        raise ValueError(f"labels have to be [P, H, W] uint8, not {labels.shape} {labels.dtype}")
    names = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
    pairs = zip(class_names, class_colors, strict=True)
    info = [f"class {i}: {n} (RGB {c[0]} {c[1]} {c[2]})" for i, (n, c) in enumerate(pairs)]
    metadata = {"Info": "\n".join(info) + "\n", "Labels": [names] * len(labels)}
    colormap = color_table(class_colors).T.astype(np.uint16) * 257

    def write(temporary: Path) -> None:
        tifffile.imwrite(
            temporary,
            labels,
            photometric="palette",
            colormap=colormap,
            description=_description(len(labels), calibration),
            metadata=None,
            extratags=tifffile.imagej_metadata_tag(metadata, "<"),
            byteorder="<",
            compression="zlib",
            **_resolution(calibration),
        )

    write_atomically(path, write)


def write_probabilities(
    path: Path,
    probabilities: np.ndarray | Iterable[np.ndarray],
    class_names: Sequence[str],
    calibration: Calibration | None = None,
    shape: tuple[int, int, int, int] | None = None,
) -> None:
    """Float hyperstack, one channel per class named after it, one slice per page.

    probabilities: [P, H, W, K] float32, or an iterable of its P pages [H, W, K], which keeps one
    page in memory at a time; then `shape` gives (P, H, W, K).
    ImageJ TIFF; above 4 GiB OME-BigTIFF, which Fiji opens through Bio-Formats.
    Raises UserError if the file cannot be written.
    """
    if isinstance(probabilities, np.ndarray):
        shape = probabilities.shape
    if shape is None or len(shape) != 4:
        raise ValueError("probabilities need the shape (P, H, W, K)")
    count, height, width, classes = shape
    planes = (
        np.ascontiguousarray(page[..., k], np.float32)
        for page in probabilities
        for k in range(classes)
    )
    large = count * height * width * classes * 4 > CLASSIC_LIMIT
    form = _ome(class_names, calibration) if large else _imagej(count, class_names, calibration)

    def write(temporary: Path) -> None:
        tifffile.imwrite(
            temporary,
            planes,
            shape=(count, classes, height, width),
            dtype=np.float32,
            photometric="minisblack",
            compression="zlib",
            **form,
        )

    write_atomically(path, write)


def _imagej(count: int, class_names: Sequence[str], calibration: Calibration | None) -> dict:
    metadata = {
        "axes": "ZCYX",
        "mode": "grayscale",
        "min": 0.0,
        "max": 1.0,
        "Labels": list(class_names) * count,
    }
    if calibration:
        metadata["unit"] = _ascii(calibration.unit)
        if calibration.spacing:
            metadata["spacing"] = calibration.spacing
    return {"imagej": True, "metadata": metadata, **_resolution(calibration)}


def _ome(class_names: Sequence[str], calibration: Calibration | None) -> dict:
    metadata = {"axes": "ZCYX", "Channel": {"Name": list(class_names)}}
    if calibration:
        unit = {"micron": "µm", "um": "µm"}.get(calibration.unit, calibration.unit)
        for axis, size in zip(
            "XYZ",
            (calibration.pixel_width, calibration.pixel_height, calibration.spacing),
            strict=True,
        ):
            if size:
                metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    return {"ome": True, "bigtiff": True, "metadata": metadata}
