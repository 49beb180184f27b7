"""Images of any size, read by slabs of rows in bounded memory; bad files raise `BadImage`.

What `image_io.read_array` gives at once comes piece by piece, pixel for pixel and refusal for
refusal. Memory: the slab, `tiff_rows.KEPT_BYTES` of decoded strips or tiles, or one row of them
where that is more (a page stored as one compressed strip has to be decoded as a whole).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from feedseg.io import images, ngff, normalize, tiff
from feedseg.io.tiff_rows import TiffRows, plane_table
from feedseg.io.zarr_rows import ZarrRows
from feedseg.runtime.errors import UserError

SLAB_BYTES = 4 * 2**20  # pixels of a slab where the caller does not choose its height
_COUNT_AT_ONCE = 2**18  # values; NumPy counts integers of 8 bytes


class Source:
    """An image file to be read by rows; use it in a `with` block or close it.

    count: pages; height, width: px; channels; dtype: uint8, uint16 or float32. All as in
    `image_io.read_array(path)`, [count, height, width, channels].
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
        """`image_io.read_array(path)[page, start:stop]`, [stop - start, W, C].

        Raises BadImage naming the file for damaged, transparent, NaN or infinite pixels and for
        values that do not fit `dtype`, if the rows hold any.
        """
        if not (0 <= page < self.count and 0 <= start < stop <= self.height):
            raise ValueError(f"no rows {start} to {stop} in page {page} of {self.path}")
        pixels = self._read(page, start, stop)
        if self._alpha:
            pixels = images.drop_alpha(self.path, pixels)
        return images.plain_type(self.path, pixels)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_source(path: Path) -> Source:
    """The image to be read by rows: TIFF, OME-Zarr and .npy of any size, pictures as a whole.

    Several threads may read a source. Raises BadImage naming the file for what
    `image_io.read_array` refuses, as far as it shows without decoding; the rest when it is met.
    """
    path = Path(path)
    suffix = path.suffix.lower() if path.is_file() else ""
    if suffix == ".npy":
        return _npy_source(path)
    if ngff.is_zarr(path):
        reader = ZarrRows(path)
        return Source(path, reader.shape, reader.dtype, reader.rows, close=reader.close)
    return (_tiff_source(path) if suffix in images.TIFF else None) or _whole_source(path)


def _whole_source(path: Path) -> Source:
    array = images.read_array(path)

    def read(page: int, start: int, stop: int) -> np.ndarray:
        return array[page, start:stop].copy()

    return Source(path, array.shape, array.dtype, read)


def _npy_source(path: Path) -> Source:
    def read(page: int, start: int, stop: int) -> np.ndarray:
        # Mapped anew each time: a map that stays keeps every page it ever read.
        return np.array(images.map_npy(path, math.inf)[page, start:stop])

    mapped = images.map_npy(path, math.inf)
    return Source(path, mapped.shape, mapped.dtype, read)


def _tiff_source(path: Path) -> Source | None:
    """A TIFF file by rows, or None if its pages do not consist of whole [Y, X] planes."""
    with ExitStack() as files:
        with tiff.strict(path):
            file = files.enter_context(tiff.open_tiff(path))
            series = tiff.main_series(path, file)
            tiff.check_header(path, series, math.inf)
            planes = plane_table(path, series)
            if planes is None:
                return None
            reader = TiffRows(path, file, series, planes)
            alpha = tiff.has_alpha(series.keyframe)
        files.pop_all()
    _, _, height, width, samples = series.keyframe.shaped
    shape = (len(planes), height, width, planes.shape[1] * samples)
    return Source(path, shape, series.dtype, reader.rows, alpha, reader.close)


def with_channels(source: Source, chosen: Sequence[int]) -> Source:
    """These channels of a source, counted from 1, none: all. UserError where it has fewer."""
    if not chosen:
        return source
    if max(chosen) > source.channels or min(chosen) < 1:
        raise UserError(
            f"{source.path}: channel(s) {', '.join(map(str, chosen))} asked for, it has "
            f"{source.channels}, counted from 1"
        )
    places = [number - 1 for number in chosen]

    def read(page: int, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(source.rows(page, start, stop)[..., places])

    shape = (source.count, source.height, source.width, len(places))
    return Source(source.path, shape, source.dtype, read, close=source.close)


def slab_height(source: Source) -> int:
    """Rows that hold about `SLAB_BYTES` of pixels, at least one."""
    row_bytes = source.width * source.channels * source.dtype.itemsize
    return min(source.height, max(1, SLAB_BYTES // row_bytes))


def limits(
    source: Source, page: int, kind: str, percentiles: tuple[float, float], height: int = 0
) -> tuple[float, float]:
    """`normalize.limits` of a page that is read by slabs: the same two numbers.

    height: rows of a slab; 0: `slab_height`. The percentiles of integers are read off the exact
    histogram of the page; for float32 the page is read twice.
    Raises UserError for an unknown kind, BadImage as `Source.rows` does.
    """
    if kind != "image_percentile":
        return normalize.limits(np.empty(0, source.dtype), kind, percentiles)
    low, high = _percentiles(source, page, percentiles, height or slab_height(source))
    return normalize.limits(np.array([low, high]), kind, (0, 100))


def _percentiles(
    source: Source, page: int, percentiles: tuple[float, float], height: int
) -> np.ndarray:
    """`np.percentile(page, percentiles)`: linear between the order statistics around a place.

    place = (n - 1) q / 100, below = floor(place), w = place - below;
    value = x[below] + w (x[below + 1] - x[below]), counted from the nearer end to be exact there.
    """
    last = source.height * source.width * source.channels - 1
    place = last * np.true_divide(percentiles, 100)
    below = np.floor(place).astype(np.int64)
    ranks = np.concatenate([below, np.minimum(below + 1, last)])
    ordered = _ordered(source, page, ranks, height)
    start, stop = ordered[: len(below)], ordered[len(below) :]
    weight, step = place - below, stop - start
    return np.where(weight < 0.5, start + step * weight, stop - step * (1 - weight))


def _ordered(source: Source, page: int, ranks: np.ndarray, height: int) -> np.ndarray:
    """The values at these places of the sorted page."""

    def values() -> Iterator[np.ndarray]:
        for start in range(0, source.height, height):
            rows = source.rows(page, start, min(start + height, source.height)).ravel()
            for at in range(0, rows.size, _COUNT_AT_ONCE):
                yield rows[at : at + _COUNT_AT_ONCE]

    if source.dtype.kind == "u":
        return _find(_histogram(values()), ranks)[0].astype(source.dtype)
    high, inner = _find(_histogram(_keys(part) >> 16 for part in values()), ranks)
    bins = np.unique(high)
    counts = np.zeros((len(bins), 2**16), np.int64)
    for part in values():
        keys = _keys(part)
        for count, number in zip(counts, bins, strict=True):
            count += np.bincount(keys[keys >> 16 == number] & 0xFFFF, minlength=2**16)
    rows = counts[np.searchsorted(bins, high)]
    low = [_find(row, rank)[0] for row, rank in zip(rows, inner, strict=True)]
    return _floats(high << 16 | np.array(low))


def _histogram(parts: Iterator[np.ndarray]) -> np.ndarray:
    """How often each of 0 to 65535 occurs."""
    counts = np.zeros(2**16, np.int64)
    for part in parts:
        found = np.bincount(part)
        counts[: len(found)] += found
    return counts


def _find(counts: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bins that hold the values of these ranks, and the ranks within them."""
    total = np.cumsum(counts)
    bins = np.searchsorted(total, ranks, side="right")
    return bins, ranks - (total[bins] - counts[bins])


def _keys(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of float32 values: all bits of negative ones flipped."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(2**31))


def _floats(keys: np.ndarray) -> np.ndarray:
    """The float32 values of `_keys`."""
    keys = keys.astype(np.uint32)
    return np.where(keys >> 31, keys ^ np.uint32(2**31), ~keys).view(np.float32)
