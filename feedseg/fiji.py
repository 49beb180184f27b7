"""Writing label and probability TIFFs that open in Fiji with colours, names and calibration.

Files are written beside their place and renamed, so a name never stands for half a file.
"""

import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from feedseg import atomic
from feedseg.calibration import Calibration
from feedseg.colors import VOID_COLOR
from feedseg.errors import UserError
from feedseg.tiff import one_line

STRIP_BYTES = 2**18  # of a strip of labels, before compression
CLASSIC_LIMIT = 2**32 - 2**25  # bytes, what fits a TIFF with 32-bit offsets


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write(temporary)` beside `path`, then a rename onto it.

    What killed processes left beside it is removed (`atomic.temporary`).
    Raises UserError naming the file if it cannot be written; nothing is left behind then.
    """
    path = Path(path)
    try:
        with atomic.temporary(path) as temporary:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); free space or choose another place"
        ) from None


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
    labels: np.ndarray | Iterable[np.ndarray],
    class_names: Sequence[str],
    class_colors: Sequence[tuple[int, int, int]],
    calibration: Calibration | None = None,
    shape: tuple[int, int, int] | None = None,
) -> None:
    """8-bit ImageJ TIFF of class ids with the class colours as its look-up table.

    labels: [P, H, W] uint8 class ids, or an iterable of slabs of rows [h, W], page after page,
    which keeps a slab in memory at a time; then `shape` gives (P, H, W). class_colors: RGB 0-255.
    Names stand in the slice labels and in Fiji's Image > Show Info. Lossless (zlib).
    Above 4 GiB of labels OME-BigTIFF without the names, which Fiji opens through Bio-Formats.
    Raises UserError if the file cannot be written, ValueError for labels of another form.
    """
    if isinstance(labels, np.ndarray):
        shape = labels.shape
        if labels.ndim != 3 or labels.dtype != np.uint8:
            raise ValueError(f"labels have to be [P, H, W] uint8, not {shape} {labels.dtype}")
    if shape is None or len(shape) != 3:
        raise ValueError("labels need the shape (P, H, W)")
    count, height, width = shape
    rows = min(height, max(1, STRIP_BYTES // width))
    large = count * height * width > CLASSIC_LIMIT
    form = _ome_labels(calibration) if large else _imagej_labels(count, class_names, class_colors)
    if not large:
        form |= {"description": _description(count, calibration), **_resolution(calibration)}

    def write(temporary: Path) -> None:
        tifffile.imwrite(
            temporary,
            (zlib.compress(strip) for strip in _in_strips(labels, height, rows)),
            shape=shape,
            dtype=np.uint8,
            photometric="palette",
            colormap=color_table(class_colors).T.astype(np.uint16) * 257,
            compression="zlib",
            rowsperstrip=rows,
            **form,
        )

    write_atomically(path, write)


def _in_strips(slabs: Iterable[np.ndarray], height: int, rows: int) -> Iterator[np.ndarray]:
    """Slabs of whole pages as strips of equal height; only the last of a page may be lower."""
    kept, done = [], 0  # slabs not yet given, rows of this page given
    for slab in slabs:
        kept.append(slab)
        have = sum(len(part) for part in kept)
        while have and have >= min(rows, height - done):
            page = np.concatenate(kept) if len(kept) > 1 else kept[0]
            count = min(rows, height - done)
            yield np.ascontiguousarray(page[:count])
            kept, have = [page[count:]], have - count
            done = (done + count) % height


def _imagej_labels(
    count: int, class_names: Sequence[str], class_colors: Sequence[tuple[int, int, int]]
) -> dict:
    names = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
    pairs = zip(class_names, class_colors, strict=True)
    info = [f"class {i}: {n} (RGB {c[0]} {c[1]} {c[2]})" for i, (n, c) in enumerate(pairs)]
    metadata = {"Info": "\n".join(info) + "\n", "Labels": [names] * count}
    tags = tifffile.imagej_metadata_tag(metadata, "<")
    return {"metadata": None, "extratags": tags, "byteorder": "<"}


def _ome_labels(calibration: Calibration | None) -> dict:
    form = _ome((), calibration)
    del form["metadata"]["Channel"]
    form["metadata"]["axes"] = "ZYX"
    return form


def write_probabilities(
    path: Path,
    probabilities: np.ndarray | Iterable[np.ndarray],
    class_names: Sequence[str],
    calibration: Calibration | None = None,
    shape: tuple[int, int, int, int] | None = None,
    dtype="float32",
) -> None:
    """Hyperstack, one channel per class named after it, one slice per page.

    probabilities: [P, H, W, K] of `dtype`, or an iterable of its P pages [H, W, K], which keeps one
    page in memory at a time; then `shape` gives (P, H, W, K).
    dtype: float32, float16 (for Python: neither ImageJ nor OME knows it), or uint8 (255 p).
    ImageJ TIFF; above 4 GiB OME-BigTIFF, which Fiji opens through Bio-Formats.
    Raises UserError if the file cannot be written.
    """
    if isinstance(probabilities, np.ndarray):
        shape = probabilities.shape
    if shape is None or len(shape) != 4:
        raise ValueError("probabilities need the shape (P, H, W, K)")
    count, height, width, classes = shape
    dtype = np.dtype(dtype)
    large = count * height * width * classes * dtype.itemsize > CLASSIC_LIMIT
    if dtype == np.float16:
        form = {"bigtiff": large, "metadata": {"axes": "ZCYX", "Channel": {"Name": [*class_names]}}}
    elif large:
        form = _ome(class_names, calibration)
    else:
        top = 255.0 if dtype == np.uint8 else 1.0
        form = _imagej(list(class_names) * count, calibration, top)
    planes = (page[..., k] for page in probabilities for k in range(classes))
    _write_planes(path, planes, (count, classes, height, width), dtype, form)


def _write_planes(path: Path, planes: Iterable[np.ndarray], shape, dtype, form: dict) -> None:
    """Planes [H, W] as compressed strips, one plane in memory at a time."""
    height, width = shape[-2:]
    order = ">" if form.get("imagej") else "<"
    stored = np.dtype(dtype).newbyteorder(order)
    rows = min(height, max(1, STRIP_BYTES // (stored.itemsize * width)))
    strips = (
        zlib.compress(np.ascontiguousarray(plane[start : start + rows], stored))
        for plane in planes
        for start in range(0, height, rows)
    )

    def write(temporary: Path) -> None:
        tifffile.imwrite(
            temporary,
            strips,
            shape=shape,
            dtype=dtype,
            byteorder=order,
            photometric="minisblack",
            compression="zlib",
            rowsperstrip=rows,
            **form,
        )

    write_atomically(path, write)


def write_instances(
    path: Path,
    pages: Iterable[np.ndarray],
    calibration: Calibration | None,
    shape: tuple[int, int, int],
    top: int,
) -> None:
    """Instance ids, 0 where there is none, with a table of mixed colours.

    pages: P of [H, W]; shape: (P, H, W); top: the largest id. 16-bit ImageJ TIFF where the ids fit,
    else 32-bit OME-TIFF, which Fiji opens through Bio-Formats, as it does files above 4 GiB.
    Raises UserError if the file cannot be written.
    """
    dtype = np.uint16 if top < 2**16 else np.uint32
    if top < 2**16 and 2 * math.prod(shape) <= CLASSIC_LIMIT:
        form = _imagej([], calibration, max(255.0, top))
        form["metadata"] |= {"axes": "ZYX", "LUTs": [_mixed_colors()]}
    else:
        form = _ome_labels(calibration)
    _write_planes(path, pages, shape, dtype, form)


def _mixed_colors() -> np.ndarray:
    """A table of 256 colours, [3, 256] uint8: black, then bright ones, neighbours far apart."""
    hues = np.arange(255) * 0.618034 % 1 * 6
    waves = [np.abs((hues + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]
    table = np.zeros((3, 256), np.uint8)
    table[:, 1:] = 55 + 200 * np.clip(waves, 0, 1)
    return table


def _imagej(labels: list[str], calibration: Calibration | None, top: float) -> dict:
    """labels: of the slices; top: the value shown brightest."""
    metadata = {"axes": "ZCYX", "mode": "grayscale", "min": 0.0, "max": top}
    if labels:
        metadata["Labels"] = labels
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
