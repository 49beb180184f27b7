"""Exact percentiles of a page that is read by slabs of rows, in bounded memory."""

from collections.abc import Iterator

import numpy as np

from feedseg.io import normalize
from feedseg.io.source import ImageSource, slab_height

_COUNT_AT_ONCE = 2**18  # values; NumPy counts integers of 8 bytes


def limits(
    source: ImageSource, page: int, kind: str, percentiles: tuple[float, float], height: int = 0
) -> normalize.Limits:
    """`normalize.limits` of a page that is read by slabs: the same numbers.

    height: rows of a slab; 0: `slab_height`. The percentiles of integers are read off the exact
    histogram of the page; for float32 the page is read twice.
    Raises UserError for an unknown kind, BadImage as `ImageSource.rows` does.
    """
    if kind not in normalize.PERCENTILES:
        return normalize.limits(np.empty(0, source.dtype), kind, percentiles)
    height = height or slab_height(source)
    each = range(source.channels) if kind == "channel_percentile" else [slice(None)]
    found = [_percentiles(source, page, percentiles, height, channel) for channel in each]
    return normalize.limits(np.stack(found, -1), kind, (0, 100))


def _percentiles(
    source: ImageSource,
    page: int,
    percentiles: tuple[float, float],
    height: int,
    channel: int | slice,
) -> np.ndarray:
    """`np.percentile(page, percentiles)`: linear between the order statistics around a place.

    place = (n - 1) q / 100, below = floor(place), w = place - below;
    value = x[below] + w (x[below + 1] - x[below]), counted from the nearer end to be exact there.
    """
    joint = source.channels if isinstance(channel, slice) else 1
    last = source.height * source.width * joint - 1
    place = last * np.true_divide(percentiles, 100)
    below = np.floor(place).astype(np.int64)
    ranks = np.concatenate([below, np.minimum(below + 1, last)])
    ordered = _ordered(source, page, ranks, height, channel)
    start, stop = ordered[: len(below)], ordered[len(below) :]
    weight, step = place - below, stop - start
    return np.where(weight < 0.5, start + step * weight, stop - step * (1 - weight))


def _ordered(
    source: ImageSource, page: int, ranks: np.ndarray, height: int, channel: int | slice
) -> np.ndarray:
    """The values at these places of the sorted page, or of one of its channels."""

    def values() -> Iterator[np.ndarray]:
        for start in range(0, source.height, height):
            pixels = source.rows(page, start, min(start + height, source.height))
            rows = np.ascontiguousarray(pixels[..., channel]).ravel()
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
