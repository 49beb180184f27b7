"""Writing label images as OME-Zarr 0.4 with colors, class names and a pyramid of sizes.

Version 0.4 (Zarr 2), since every reader of OME-Zarr takes it; not all take 0.5 (Zarr 3) yet.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from feedseg.io import ngff
from feedseg.io.calibration import Calibration, ngff_unit
from feedseg.io.selection import PageAxes
from feedseg.io.stack_axes import check_axes
from feedseg.io.writers.imagej import in_strips
from feedseg.io.writers.label_image import LabelImage
from feedseg.io.zarr_rows import library
from feedseg.runtime import files
from feedseg.runtime.errors import UserError

FORMAT, SUFFIXES = "ome-zarr", (".ome.zarr", ".zarr")
CHUNK = 1024  # px, side of a chunk
SMALLEST = 512  # px, longer side at which the pyramid ends
NAME = "classes"  # of the label image


def require(folder: Path) -> None:
    """Raises UserError naming the folder if the library is missing."""
    library(folder)


def write(path: Path, image: LabelImage) -> None:
    """OME-Zarr 0.4 of class ids; each level of its pyramid has every second pixel of the one below.

    Rows of one chunk are in memory at a time.
    The pixels are in `labels/classes`, a label image that may be copied into the `labels` of the
    segmented image; the folder itself is an image with the same pixels, for readers without labels.
    Raises SaveFailed if it cannot be written, ValueError for labels of another form.
    """
    count, height, width = image.size()
    axes, calibration = check_axes(image.axes, count), image.calibration
    zarr = library(path)

    sizes = [(name, dict(axes)[name]) for name in "tz" if name in dict(axes)]
    levels = _levels((height, width))
    entries = [_axis(name, calibration) for name, _ in (*sizes, ("y", height), ("x", width))]
    scales = _multiscales(entries, calibration, len(levels))
    outer = _image_attributes(Path(path).name, scales, max(1, len(image.class_names) - 1))
    inner = _label_attributes(scales, image.class_names, image.class_colors)

    def fill(folder: Path) -> None:
        root = zarr.create_group(str(folder), zarr_format=2, attributes=outer)
        root.create_group("labels", attributes={"labels": [NAME]})
        group = root.create_group(f"labels/{NAME}", attributes=inner)
        shapes = [(*(size for _, size in sizes), *level) for level in levels]
        arrays = [_array(group, str(number), shape) for number, shape in enumerate(shapes)]
        places = list(_places(axes, [name for name, _ in sizes]))
        _fill(arrays[0], places, in_strips(image.labels, height, CHUNK))
        for fine, coarse in pairwise(arrays):
            _fill(coarse, places, _thinned(fine, places))

    _write_folder(Path(path), fill)


def _levels(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of all levels, the finest first."""
    levels = [size]
    while max(levels[-1]) > SMALLEST:
        levels.append(tuple(math.ceil(side / 2) for side in levels[-1]))
    return levels


def _array(group, name: str, shape: tuple[int, ...]):
    from numcodecs import Blosc

    return group.create_array(
        name,
        shape=shape,
        chunks=(*(1 for _ in shape[:-2]), *(min(CHUNK, side) for side in shape[-2:])),
        dtype="uint8",
        fill_value=0,
        compressors=Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},  # an absent one would look like a copy in part
    )


def _places(axes: PageAxes, names: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Where each page, in the order of the pages, is along the axes of the array."""
    sizes = [size for _, size in axes]
    for numbers in np.ndindex(*sizes):
        found = dict(zip((name for name, _ in axes), numbers, strict=True))
        yield tuple(found[name] for name in names)


def _fill(array, places: list[tuple[int, ...]], bands: Iterator[np.ndarray]) -> None:
    """Write bands of whole chunks, from the top of the first page on."""
    height = array.shape[-2]
    for place in places:
        for top in range(0, height, CHUNK):
            array[(*place, slice(top, min(top + CHUNK, height)))] = next(bands)


def _thinned(array, places: list[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Every second row and column of an array, in bands of whole chunks."""
    for place in places:
        for top in range(0, array.shape[-2], 2 * CHUNK):
            yield np.asarray(array[(*place, slice(top, top + 2 * CHUNK))])[::2, ::2]


def _axis(name: str, calibration: Calibration | None) -> dict:
    if name == "t":
        interval = calibration and calibration.frame_interval
        return {"name": "t", "type": "time"} | ({"unit": "second"} if interval else {})
    unit = calibration and ngff_unit(calibration.unit)
    return {"name": name, "type": "space"} | ({"unit": unit} if unit else {})


def _multiscales(axes: list[dict], calibration: Calibration | None, levels: int) -> dict:
    """Metadata of the image; a pixel of a level lies where that of the finest one lies."""
    sizes = {"t": 1.0, "z": 1.0, "y": 1.0, "x": 1.0}
    if calibration and ngff_unit(calibration.unit):
        sizes |= {"y": calibration.pixel_height, "x": calibration.pixel_width}
        sizes["z"] = calibration.spacing or 1.0
    if calibration and calibration.frame_interval:
        sizes["t"] = calibration.frame_interval
    steps = {"y": 2, "x": 2}
    datasets = []
    for level in range(levels):
        scale = [sizes[a["name"]] * steps.get(a["name"], 1) ** level for a in axes]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    return {"version": "0.4", "axes": axes, "datasets": datasets, "type": "nearest"}


def _image_attributes(name: str, image: dict, top: int) -> dict:
    """Of the outer folder: the same pixels as an image, shown from 0 to the last class."""
    datasets = [{**level, "path": f"labels/{NAME}/{level['path']}"} for level in image["datasets"]]
    window = {"min": 0, "max": 255, "start": 0, "end": top}
    channel = {"label": NAME, "color": "FFFFFF", "window": window, "active": True}
    return {
        "multiscales": [{**image, "name": name, "datasets": datasets}],
        "omero": {"version": "0.4", "channels": [channel], "rdefs": {"model": "greyscale"}},
    }


def _label_attributes(
    image: dict, class_names: Sequence[str], class_colors: Sequence[tuple[int, int, int]]
) -> dict:
    """Of the label image: colors and names of the class ids."""
    colors = [{"label-value": i, "rgba": [*c, 255]} for i, c in enumerate(class_colors)]
    names = [{"label-value": i, "class": name} for i, name in enumerate(class_names)]
    label = {"version": "0.4", "colors": colors, "properties": names}
    source = {"image": "../../"}
    return {"multiscales": [{**image, "name": NAME}], "image-label": {**label, "source": source}}


def _write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """`write(temporary)` beside `path`, then a rename onto it; an OME-Zarr there is replaced.

    Raises SaveFailed naming the folder if it cannot be written; nothing is left behind then.
    """
    with files.saving(path), contextlib.ExitStack() as last:
        lock = last.enter_context(files.temporary(path, ".lock"))
        _remove_leftovers(path)
        folder = lock.with_suffix(".part")
        last.callback(shutil.rmtree, folder, ignore_errors=True)
        if path.exists() and not ngff.is_zarr(path):
            raise UserError(f"{path}: exists and is no OME-Zarr; choose another place")
        write(folder)
        _flush(folder)
        if path.exists():
            old = lock.with_suffix(".old")
            last.callback(shutil.rmtree, old, ignore_errors=True)
            path.rename(old)
        folder.rename(path)


def _remove_leftovers(path: Path) -> None:
    """Folders of killed processes: their lock is gone."""
    for ending in (".part", ".old"):
        for folder in path.parent.glob(f".{path.name}.*{ending}"):
            if not folder.with_suffix(".lock").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """To the disk before the folder gets its name."""
    for where, _, names in os.walk(folder):
        for name in names:
            with (Path(where) / name).open("rb+") as file:
                os.fsync(file.fileno())
