"""The axes that the pages of an image run along: times and slices."""

import math
from collections.abc import Sequence
from pathlib import Path

from feedseg.io import bioio_rows, ngff, tiff
from feedseg.io.reading import ReadOptions
from feedseg.io.selection import PageAxes
from feedseg.io.zarr_rows import ZarrRows


def stated(path: Path, how: ReadOptions, count: int) -> PageAxes:
    """Name ("t" or "z") and length of the axes of all `count` pages of a file, slowest first.

    TIFF, OME-Zarr and the files of microscopes state them; other pages are slices. An axis of
    length 1 is one where an OME-Zarr has it. Raises BadImage for a damaged file.
    """
    if ngff.is_zarr(path):
        return ZarrRows(path, how.series).page_axes
    suffix = path.suffix.lower()
    if suffix in bioio_rows.SUFFIXES:
        return bioio_rows.BioRows(path, how.series).page_axes
    if suffix in tiff.SUFFIXES:
        return tiff.strictly(path, lambda f: _of_series(path, tiff.main_series(path, f, how), how))
    return slices(count)


def _of_series(path: Path, series, how: ReadOptions) -> PageAxes:
    axes = zip(tiff.axes_of(path, series, how), series.shape, strict=True)
    found = tuple((axis.lower(), size) for axis, size in axes if axis not in "YXSC" and size > 1)
    known = [axis for axis, _ in found] in (["t"], ["z"], ["t", "z"], ["z", "t"])
    return found if known else slices(math.prod(size for _, size in found))


def slices(count: int) -> PageAxes:
    """The axes of so many pages of which nothing is known."""
    return (("z", count),) if count > 1 else ()


def check_axes(axes: Sequence[tuple[str, int]] | None, count: int) -> PageAxes:
    """These axes; for None slices. Raises ValueError if they make another number of pages."""
    axes = slices(count) if axes is None else tuple(axes)
    if math.prod(size for _, size in axes) != count:
        raise ValueError(f"axes {axes} for {count} pages")
    return axes
