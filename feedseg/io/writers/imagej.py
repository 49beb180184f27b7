"""Writing label and probability TIFFs that open in Fiji with colors, names and calibration.

Files are written beside their place and renamed, so a name never stands for half a file.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from feedseg.io.calibration import Calibration
from feedseg.io.colors import VOID_COLOR
from feedseg.io.writers import ome_xml
from feedseg.io.writers.label_image import LabelImage
from feedseg.runtime.files import write_atomically

FORMAT, SUFFIXES = "tiff", (".tif", ".tiff")
STRIP_BYTES = 2**18  # of a strip of labels, before compression
_IMAGEJ_AXES = {"T": "frames", "Z": "slices"}
CLASSIC_LIMIT = 2**32 - 2**25  # bytes, what fits a TIFF with 32-bit offsets


def _ascii(text: str) -> str:
    """ImageJ's description is 7-bit: other characters as backslash, u and four digits."""
    return "".join(c if ord(c) < 128 else f"\\u{ord(c):04X}" for c in text)


def _hyperstack(pages: int, axes: Sequence[tuple[str, int]] | None) -> dict[str, int]:
    """T and Z of an ImageJ hyperstack: times, or the slices of each time; all else are slices."""
    sizes = {name.upper(): size for name, size in axes or ()}
    return sizes if list(sizes) in (["T"], ["T", "Z"]) else {"Z": pages}


def _description(sizes: dict[str, int], calibration: Calibration | None) -> str:
    """ImageJ's text in the first page; sizes: of `_hyperstack`."""
    pages = math.prod(sizes.values())
    lines = ["ImageJ=1.11a", f"images={pages}"]
    if pages > 1:
        lines += [f"{_IMAGEJ_AXES[axis]}={size}" for axis, size in sizes.items() if size > 1]
        lines += ["hyperstack=true"] if "T" in sizes else []
        lines += ["loop=false"]
    if calibration:
        lines.append(f"unit={_ascii(calibration.unit)}")
        if calibration.spacing:
            lines.append(f"spacing={calibration.spacing!r}")
        if calibration.frame_interval:
            lines.append(f"finterval={calibration.frame_interval!r}")
    return "\n".join([*lines, "min=0.0", "max=255.0", ""])


def _resolution(calibration: Calibration | None) -> dict:
    """tifffile's arguments for pixels per unit."""
    if calibration is None:
        return {}
    per_unit = (1 / calibration.pixel_width, 1 / calibration.pixel_height)
    return {"resolution": per_unit, "resolutionunit": "NONE"}


def color_table(class_colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """RGB of all 256 values, [256, 3] uint8; values that are no class are gray."""
    table = np.full((256, 3), VOID_COLOR, np.uint8)
    table[: len(class_colors)] = class_colors
    return table


def write(path: Path, image: LabelImage) -> None:
    """8-bit ImageJ TIFF of class ids with the class colors as its look-up table.

    The class names appear in Fiji's Image > Show Info, and in the slice labels, of which Fiji shows
    that of a single page (it drops those of compressed stacks). Lossless (zlib).
    Above 4 GiB of labels OME-BigTIFF, which Fiji opens through Bio-Formats (`ome_xml.classes`).
    Raises SaveFailed if the file cannot be written, ValueError for labels of another form.
    """
    count, height, width = image.size()
    sizes = _hyperstack(count, image.axes)
    if count * height * width > CLASSIC_LIMIT:
        classes = ome_xml.classes(image.class_names, image.class_colors)
        form = ome_xml.form(path, f"{''.join(sizes)}YX", image.calibration, **classes)
    else:
        form = _imagej_labels(count, image.class_names, image.class_colors)
        form["description"] = _description(sizes, image.calibration)
        form |= _resolution(image.calibration)
    write_indexed(path, image, (*sizes.values(), height, width), form)


def write_indexed(path: Path, image: LabelImage, shape: tuple[int, ...], form: dict) -> None:
    """8-bit TIFF with a color table, one slab in memory at a time.

    shape: (..., H, W), as stored; form: more arguments of `tifffile.imwrite`.
    Raises SaveFailed if the file cannot be written.
    """
    height, width = shape[-2:]
    rows = min(height, max(1, STRIP_BYTES // width))

    def write(temporary: Path) -> None:
        tifffile.imwrite(
            temporary,
            (zlib.compress(strip) for strip in in_strips(image.labels, height, rows)),
            shape=shape,
            dtype=np.uint8,
            photometric="palette",
            colormap=color_table(image.class_colors).T.astype(np.uint16) * 257,
            compression="zlib",
            rowsperstrip=rows,
            **form,
        )

    write_atomically(path, write)


def _imagej_labels(
    count: int, class_names: Sequence[str], class_colors: Sequence[tuple[int, int, int]]
) -> dict:
    names = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
    pairs = zip(class_names, class_colors, strict=True)
    info = [f"class {i}: {n} (RGB {c[0]} {c[1]} {c[2]})" for i, (n, c) in enumerate(pairs)]
    metadata = {"Info": "\n".join(info) + "\n", "Labels": [names] * count}
    tags = tifffile.imagej_metadata_tag(metadata, "<")
    return {"metadata": None, "extratags": tags, "byteorder": "<"}


def write_probabilities(
    path: Path,
    probabilities: np.ndarray | Iterable[np.ndarray],
    class_names: Sequence[str],
    calibration: Calibration | None = None,
    shape: tuple[int, int, int, int] | None = None,
    dtype="float32",
    axes: Sequence[tuple[str, int]] | None = None,
) -> None:
    """Hyperstack, one channel per class named after it, one slice per page.

    probabilities: [P, H, W, K] of `dtype`, or an iterable of slabs of rows [h, W], channel after
    channel of each page, which keeps a slab in memory at a time; then `shape` gives (P, H, W, K).
    dtype: float32, float16 (for Python: neither ImageJ nor OME knows it), or uint8 (255 p).
    axes: of the pages, as in `write_labels`. The names stand in Fiji's Image > Show Info too.
    ImageJ TIFF; above 4 GiB OME-BigTIFF, which Fiji opens through Bio-Formats.
    Raises SaveFailed if the file cannot be written.
    """
    slabs = probabilities
    if isinstance(probabilities, np.ndarray):
        shape = probabilities.shape
        slabs = (page[..., k] for page in probabilities for k in range(shape[3]))
    if shape is None or len(shape) != 4:
        raise ValueError("probabilities need the shape (P, H, W, K)")
    count, height, width, classes = shape
    dtype, pages = np.dtype(dtype), (count,)
    large = count * height * width * classes * dtype.itemsize > CLASSIC_LIMIT
    if dtype == np.float16:
        form = {"bigtiff": large, "metadata": {"axes": "ZCYX", "Channel": {"Name": [*class_names]}}}
    elif large:
        form = ome_xml.form(path, "ZCYX", calibration, Channel={"Name": [*class_names]})
    else:
        top = 255.0 if dtype == np.uint8 else 1.0
        sizes = _hyperstack(count, axes)
        form = _imagej(f"{''.join(sizes)}CYX", calibration, top)
        info = "".join(f"channel {k}: {name}\n" for k, name in enumerate(class_names, 1))
        form["metadata"] |= {"Labels": list(class_names) * count, "Info": info}
        pages = (*sizes.values(),)
    _write_planes(path, slabs, (*pages, classes, height, width), dtype, form)


def _write_planes(path: Path, slabs: Iterable[np.ndarray], shape, dtype, form: dict) -> None:
    """Slabs [h, W] as compressed strips, plane after plane, one slab in memory at a time."""
    height, width = shape[-2:]
    order = ">" if form.get("imagej") else "<"
    stored = np.dtype(dtype).newbyteorder(order)
    rows = min(height, max(1, STRIP_BYTES // (stored.itemsize * width)))
    strips = (zlib.compress(strip.astype(stored)) for strip in in_strips(slabs, height, rows))

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
    ids: Iterable[np.ndarray],
    calibration: Calibration | None,
    shape: tuple[int, int, int],
    top: int,
    axes: Sequence[tuple[str, int]] | None = None,
) -> None:
    """Instance ids, 0 where there is none, with a table of mixed colors.

    ids: slabs of rows [h, W], page after page; shape: (P, H, W); top: the largest id; axes: as in
    `write_labels`.
    16-bit ImageJ TIFF where the ids fit, else 32-bit OME-TIFF, which Fiji opens through
    Bio-Formats, as it does files above 4 GiB.
    Raises SaveFailed if the file cannot be written.
    """
    dtype = np.uint16 if top < 2**16 else np.uint32
    if top < 2**16 and 2 * math.prod(shape) <= CLASSIC_LIMIT:
        sizes = _hyperstack(shape[0], axes)
        form = _imagej(f"{''.join(sizes)}YX", calibration, max(255.0, top))
        colors = _mixed_colors()
        form["metadata"]["LUTs"] = [colors]
        # ImageJ takes the table of a 16-bit image from the tag ColorMap.
        form["extratags"] = [(320, "H", colors.size, colors.astype(np.uint16) * 257, True)]
        shape = (*sizes.values(), *shape[1:])
    else:
        form = ome_xml.form(path, "ZYX", calibration)
    _write_planes(path, ids, shape, dtype, form)


def _mixed_colors() -> np.ndarray:
    """A table of 256 colors, [3, 256] uint8: black, then bright ones, neighbors far apart."""
    hues = np.arange(255) * 0.618034 % 1 * 6
    waves = [np.abs((hues + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]
    table = np.zeros((3, 256), np.uint8)
    table[:, 1:] = 55 + 200 * np.clip(waves, 0, 1)
    return table


def _imagej(axes: str, calibration: Calibration | None, top: float) -> dict:
    """axes: as tifffile names them; top: the value shown brightest."""
    metadata = {"axes": axes, "mode": "grayscale", "min": 0.0, "max": top}
    if calibration:
        metadata["unit"] = _ascii(calibration.unit)
        if calibration.spacing:
            metadata["spacing"] = calibration.spacing
        if calibration.frame_interval:
            metadata["finterval"] = calibration.frame_interval
    return {"imagej": True, "metadata": metadata, **_resolution(calibration)}


def in_strips(slabs: Iterable[np.ndarray], height: int, rows: int) -> Iterator[np.ndarray]:
    """Slabs of whole pages as strips of `rows` rows; only the last of a page may be lower.

    slabs: [h, W] from top to bottom, page after page; height: of a page.
    """
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
