"""Images of any size, read by slabs of rows in bounded memory; bad files raise `BadImage`.

What `images.read_array` gives at once comes piece by piece, pixel for pixel and refusal for
refusal. Memory: the slab, `tiff_rows.KEPT_BYTES` of decoded strips or tiles, or one row of them
where that is more (a page stored as one compressed strip has to be decoded as a whole).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from feedseg.io import (
    appearance,
    bioio_rows,
    channel_files,
    channel_names,
    images,
    ngff,
    selection,
    stack_axes,
    tiff,
)
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.tiff_rows import TiffRows, plane_table

SLAB_BYTES = 4 * 2**20  # pixels of a slab where the caller does not choose its height


class ImageSource:
    """An image file to be read by rows; use it in a `with` block or close it.

    count: pages; height, width: px; channels; dtype: uint8, uint16 or float32. All as in
    `images.read_array(path)`, [count, height, width, channels].
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int, int],
        stored: np.dtype,
        read: Callable[[int, int, int], np.ndarray],
        alpha: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """shape: [P, H, W, C] and stored: type of what `read(page, start, stop)` gives.

        alpha: whether the last channel is an opacity, to be dropped where it is full.
        """
        self.path = path
        self.count, self.height, self.width = shape[:3]
        self.channels = shape[3] - alpha
        self.dtype = images.plain_type(path, np.zeros(1, stored)).dtype
        self._read, self._alpha, self.close = read, alpha, close

    def rows(self, page: int, start: int, stop: int) -> np.ndarray:
        """`images.read_array(path)[page, start:stop]`, [stop - start, W, C].

        Raises BadImage naming the file for damaged, transparent, NaN or infinite pixels and for
        values that do not fit `dtype`, if the rows hold any.
        """
        if not (0 <= page < self.count and 0 <= start < stop <= self.height):
            raise ValueError(f"no rows {start} to {stop} in page {page} of {self.path}")
        pixels = self._read(page, start, stop)
        if self._alpha:
            pixels = images.drop_alpha(self.path, pixels)
        return images.plain_type(self.path, pixels)

    def __enter__(self) -> "ImageSource":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_source(path: Path, how: ReadOptions = AS_STATED) -> ImageSource:
    """The image to be read by rows: TIFF, OME-Zarr, the files of microscopes and .npy of any size;
    pictures, and TIFF files that are to be turned, as a whole. how: see `ReadOptions`.

    Several threads may read a source. Raises BadImage naming the file for what
    `images.read_array` refuses, as far as it shows without decoding; the rest when it is met.
    """
    path = Path(path)
    source = _stacked(path, how) if how.channel_files else _selected_pages(path, how)
    if not how.channels:
        return source
    with ExitStack() as files:
        files.callback(source.close)
        chosen = with_channels(source, how.channels, lambda: channel_names.of(path, how))
        files.pop_all()
    return chosen


def _stacked(path: Path, how: ReadOptions) -> ImageSource:
    """The channels of several files as one image."""
    alone = how._replace(channels=(), channel_files=())
    with ExitStack() as files:
        paths = channel_files.members(path, how.channel_files)
        sources = [files.enter_context(_selected_pages(each, alone)) for each in paths]
        first = sources[0]
        channel_files.require_alike(
            (each.path, (each.count, each.height, each.width), each.dtype) for each in sources
        )
        close = files.pop_all().close

    def read(page: int, start: int, stop: int) -> np.ndarray:
        return np.concatenate([each.rows(page, start, stop) for each in sources], -1)

    channels = sum(each.channels for each in sources)
    shape = (first.count, first.height, first.width, channels)
    return ImageSource(path, shape, first.dtype, read, close=close)


def _selected_pages(path: Path, how: ReadOptions) -> ImageSource:
    source = _plain_source(path, how)
    if not how.z:
        return source
    with ExitStack() as files:
        files.callback(source.close)
        axes = stack_axes.stated(path, how, source.count)
        groups, _ = selection.pages(path, axes, how.z)
        files.pop_all()

    def read(page: int, start: int, stop: int) -> np.ndarray:
        found = source.rows(int(groups[page, 0]), start, stop)
        for other in groups[page, 1:].tolist():
            np.maximum(found, source.rows(other, start, stop), out=found)
        return found

    shape = (len(groups), source.height, source.width, source.channels)
    return ImageSource(path, shape, source.dtype, read, close=source.close)


def _plain_source(path: Path, how: ReadOptions) -> ImageSource:
    """All pages and channels of a file."""
    suffix = path.suffix.lower() if path.is_file() else ""
    if suffix == ".npy":
        return _npy_source(path, how)
    if ngff.is_zarr(path) or suffix in bioio_rows.SUFFIXES:
        reader = images.rows_of(path, how)
        return ImageSource(path, reader.shape, reader.dtype, reader.rows, close=reader.close)
    return (_tiff_source(path, how) if suffix in tiff.SUFFIXES else None) or _whole_source(
        path, how
    )


def _whole_source(path: Path, how: ReadOptions) -> ImageSource:
    array = images.read_array(path, how._replace(channels=(), z=""))

    def read(page: int, start: int, stop: int) -> np.ndarray:
        return array[page, start:stop].copy()

    return ImageSource(path, array.shape, array.dtype, read)


def _npy_source(path: Path, how: ReadOptions) -> ImageSource:
    def read(page: int, start: int, stop: int) -> np.ndarray:
        # Mapped anew each time: a map that stays keeps every page it ever read.
        return np.array(images.map_npy(path, math.inf, how)[page, start:stop])

    mapped = images.map_npy(path, math.inf, how)
    return ImageSource(path, mapped.shape, mapped.dtype, read)


def _tiff_source(path: Path, how: ReadOptions) -> ImageSource | None:
    """A TIFF file by rows, or None if its pages are no whole [Y, X] planes, or to be turned."""
    with ExitStack() as files:
        with tiff.strict(path):
            file = files.enter_context(tiff.open_tiff(path))
            series = tiff.main_series(path, file, how)
            tiff.check_header(path, series, math.inf)
            planes = plane_table(series, tiff.axes_of(path, series, how))
            seen = appearance.of(path, file, series.keyframe, how, label=False)
            if planes is None or seen.orientation > 1:
                return None
            reader = TiffRows(path, file, series, planes)
            alpha = tiff.has_alpha(series.keyframe)
        files.pop_all()
    bits = series.keyframe.bitspersample

    def read(page: int, start: int, stop: int) -> np.ndarray:
        stored = reader.rows(page, start, stop)
        return appearance.applied(path, stored, seen, False, bits, how.interpret)

    _, _, height, width, samples = series.keyframe.shaped
    channels, kind = planes.shape[1] * samples, series.dtype
    if seen.palette is not None:
        channels, kind = seen.palette.shape[1], seen.palette.dtype
    shape = (len(planes), height, width, channels)
    return ImageSource(path, shape, kind, read, alpha, reader.close)


def with_channels(
    source: ImageSource,
    chosen: Sequence[int | str],
    names: Callable[[], Sequence[str]] = tuple,
) -> ImageSource:
    """These channels of a source, by number from 1 or by name. UserError for those it has not."""
    places = selection.channels(source.path, source.channels, chosen, names)

    def read(page: int, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(source.rows(page, start, stop)[..., places])

    shape = (source.count, source.height, source.width, len(places))
    return ImageSource(source.path, shape, source.dtype, read, close=source.close)


def slab_height(source: ImageSource) -> int:
    """Rows that hold about `SLAB_BYTES` of pixels, at least one."""
    row_bytes = source.width * source.channels * source.dtype.itemsize
    return min(source.height, max(1, SLAB_BYTES // row_bytes))


def page_axes(path: Path, how: ReadOptions = AS_STATED) -> selection.PageAxes:
    """Name ("t" or "z") and length of the axes that the pages of an image run along, slowest first.

    As `page_axes.stated`, of the slices that `how` chooses.
    """
    path = Path(path)
    with _plain_source(path, how) as source:
        axes = stack_axes.stated(path, how, source.count)
    return selection.pages(path, axes, how.z)[1] if how.z else axes
