"""Writing label images as OME-TIFF, for Bio-Formats, OMERO, QuPath and napari."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from feedseg.io import page_axes
from feedseg.io.calibration import Calibration
from feedseg.io.writers import imagej, ome_xml


def write_labels(
    path: Path,
    labels: np.ndarray | Iterable[np.ndarray],
    class_names: Sequence[str],
    class_colors: Sequence[tuple[int, int, int]],
    calibration: Calibration | None = None,
    shape: tuple[int, int, int] | None = None,
    axes: Sequence[tuple[str, int]] | None = None,
) -> None:
    """8-bit OME-TIFF of class ids with the class colours as its colour table.

    labels, shape: as of `fiji.write_labels`; axes: of the pages, as `page_axes.page_axes` gives
    them; None: slices. Pixel sizes and the names of the classes stand in the OME-XML, the latter
    with their colours as map annotations (`ome_form.NAMES`, `ome_form.COLORS`): class id -> name.
    Lossless (zlib); BigTIFF where it has to be.
    Raises UserError if the file cannot be written, ValueError for labels of another form.
    """
    count, height, width = imagej.label_shape(labels, shape)
    axes = page_axes.check(axes, count)
    form = ome_xml.form(
        path,
        "".join(name.upper() for name, _ in axes) + "YX",
        calibration,
        count * height * width > imagej.CLASSIC_LIMIT,
        **ome_xml.classes(class_names, class_colors),
    )
    sizes = (*(size for _, size in axes), height, width)
    imagej.write_indexed(path, labels, sizes, class_colors, form)
