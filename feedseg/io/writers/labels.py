"""The formats of label images: for Fiji, OME-TIFF, OME-Zarr."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from feedseg.io import zarr_rows
from feedseg.io.calibration import Calibration
from feedseg.io.writers import imagej, ome_tiff
from feedseg.io.writers import ome_zarr as ome_zarr_labels

SUFFIXES = {"tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}


def require(form: str, folder: Path) -> None:
    """Raises UserError, naming the folder to be written to, if a format needs what is missing."""
    if form == "ome-zarr":
        zarr_rows.library(folder)


def write_labels(
    path: Path,
    labels: np.ndarray | Iterable[np.ndarray],
    class_names: Sequence[str],
    class_colors: Sequence[tuple[int, int, int]],
    calibration: Calibration | None = None,
    shape: tuple[int, int, int] | None = None,
    axes: Sequence[tuple[str, int]] | None = None,
) -> None:
    """A label image in the format that its name ends in, of `SUFFIXES`.

    labels, shape: as of `fiji.write_labels`; axes: of the pages, as `page_axes.page_axes` gives
    them.
    Raises UserError if it cannot be written, ValueError for labels of another form.
    """
    name = Path(path).name.lower()
    form = ome_zarr_labels if name.endswith(".zarr") else imagej
    if name.endswith((".ome.tif", ".ome.tiff")):
        form = ome_tiff
    form.write_labels(path, labels, class_names, class_colors, calibration, shape, axes)
