"""What the pages of an image are: times, slices, or the slices of each time."""

import math
from collections.abc import Sequence
from pathlib import Path

from feedseg.io import ngff, tiff
from feedseg.io.source import open_source
from feedseg.io.zarr_rows import ZarrRows

PageAxes = tuple[tuple[str, int], ...]


def page_axes(path: Path) -> PageAxes:
    """Name ("t" or "z") and length of the axes that the pages of an image run along, slowest first.

    TIFF and OME-Zarr state them; other pages are slices. An axis of length 1 is one where an
    OME-Zarr has it. Raises BadImage for a damaged file.
    """
    path = Path(path)
    if ngff.is_zarr(path):
        return ZarrRows(path).page_axes
    if path.suffix.lower() in (".tif", ".tiff"):
        return tiff.strictly(path, lambda file: _of_series(tiff.main_series(path, file)))
    with open_source(path) as source:
        return _slices(source.count)


def _of_series(series) -> PageAxes:
    axes = zip(series.axes, series.shape, strict=True)
    found = tuple((axis.lower(), size) for axis, size in axes if axis not in "YXSC" and size > 1)
    known = [axis for axis, _ in found] in (["t"], ["z"], ["t", "z"], ["z", "t"])
    return found if known else _slices(math.prod(size for _, size in found))


def _slices(count: int) -> PageAxes:
    return (("z", count),) if count > 1 else ()


def check(axes: Sequence[tuple[str, int]] | None, count: int) -> PageAxes:
    """These axes; for None slices. Raises ValueError if they make another number of pages."""
    axes = _slices(count) if axes is None else tuple(axes)
    if math.prod(size for _, size in axes) != count:
        raise ValueError(f"axes {axes} for {count} pages")
    return axes
