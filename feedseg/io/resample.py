"""Images at another size, by rows: linear interpolation, smoothed before they are made smaller.

    Y = R_y X R_x^T

is the image Y [H', W'] of X [H, W]. With n pixels along an axis that become m and f = n / m,

    R[i] = sum_k g(k) l(c_i + k),   c_i = (i + 1/2) f - 1/2,

where l(c) interpolates linearly between the two pixels beside c and g is a Gaussian of
sigma = max(0, (f - 1) / 2) px, cut off at 4 sigma. Beyond its border an image continues as its
mirror image about the centers of its outermost pixels.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import scipy

BLOCK_PX = 2**20  # of the larger image that are in work at once
LEAST, MOST = 1 / 16, 16.0  # times the size of an image

Size = tuple[int, int]


def scaled(size: Size, scales: tuple[float, float]) -> Size:
    """Height and width of an image that is made so many times as high and as wide, px."""
    height, width = (max(1, round(n * scale)) for n, scale in zip(size, scales, strict=True))
    return height, width


def weights(count: int, wanted: int) -> scipy.sparse.csr_array:
    """R [wanted, count] float32, its rows add up to 1."""
    factor = count / wanted
    sigma = max(0.0, (factor - 1) / 2)
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    smooth = np.exp(-0.5 * (steps / sigma) ** 2) if reach else np.ones(1)
    smooth /= smooth.sum()
    center = (np.arange(wanted)[:, None] + 0.5) * factor - 0.5
    below = np.floor(center)
    values = (below + 1 - center) * np.append(smooth, 0) + (center - below) * np.append(0, smooth)
    places = _mirrored(below.astype(np.int64) + np.append(steps, reach + 1), count)
    starts = np.arange(wanted + 1) * values.shape[1]
    parts = values.ravel().astype(np.float32), places.ravel(), starts
    found = scipy.sparse.csr_array(parts, shape=(wanted, count))
    found.sum_duplicates()
    found.eliminate_zeros()
    return found


def _mirrored(places: np.ndarray, count: int) -> np.ndarray:
    period = max(1, 2 * (count - 1))
    places = places % period
    return np.minimum(places, period - places) if count > 1 else np.zeros_like(places)


class Resampling:
    """From images of one size to images of another, (height, width) px."""

    def __init__(self, size: Size, wanted: Size) -> None:
        self._down, self._across = map(weights, size, wanted)
        spans = np.split(self._down.indices, self._down.indptr[1:-1])
        self._first = np.minimum.accumulate([span.min() for span in spans][::-1])[::-1]
        self._last = np.maximum.accumulate([span.max() + 1 for span in spans])
        widest = max(size[1], wanted[1]) * max(1.0, size[0] / wanted[0])
        self._block = max(1, int(BLOCK_PX / widest))  # rows made at once

    def first(self, row: int) -> int:
        """The first row that this row of the result depends on."""
        return int(self._first[row])

    def rows(self, read: Callable[[int, int], np.ndarray], start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of the result, [stop - start, W', C] float32.

        read: (first row, one past the last) of the image -> [rows, W, C] float32.
        """
        parts = []
        for top in range(start, stop, self._block):
            end = min(stop, top + self._block)
            first, last = self.first(top), int(self._last[end - 1])
            parts.append(self._made(read(first, last), first, top, end))
        return np.concatenate(parts)

    def stream(self, slabs: Iterable[np.ndarray], start: int = 0) -> Iterator[np.ndarray]:
        """The result from row `start` on, [h, W', C] float32.

        slabs: of the image from row `first(start)` to its end, [h, W, C]. Memory: the rows that
        the next one depends on, and a slab.
        """
        held, top = None, self.first(start)
        for slab in slabs:
            held = slab if held is None else np.concatenate([held, slab])
            ready = int(np.searchsorted(self._last, top + len(held), side="right"))
            while start < ready:
                end = min(ready, start + self._block)
                yield self._made(held, top, start, end)
                start = end
            if start < len(self._first):
                held, top = held[self.first(start) - top :], self.first(start)

    def _made(self, pixels: np.ndarray, first: int, start: int, stop: int) -> np.ndarray:
        """Rows of the result from the rows of the image, of which `first` is the first one."""
        count, width, channels = pixels.shape
        down = self._down[start:stop, first : first + count]
        found = (down @ pixels.reshape(count, -1)).reshape(-1, width, channels)
        columns = self._across @ found.transpose(1, 0, 2).reshape(width, -1)
        across = columns.reshape(-1, stop - start, channels).transpose(1, 0, 2)
        return np.ascontiguousarray(across, np.float32)


def image(pixels: np.ndarray, wanted: Size) -> np.ndarray:
    """A whole image [H, W, C] at `wanted` px, of its own type, integers rounded."""
    if pixels.shape[:2] == wanted:
        return pixels

    def read(start: int, stop: int) -> np.ndarray:
        return pixels[start:stop].astype(np.float32, copy=False)

    found = Resampling(pixels.shape[:2], wanted).rows(read, 0, wanted[0])
    return (np.rint(found) if pixels.dtype.kind in "iu" else found).astype(pixels.dtype)


def labels(ids: np.ndarray, wanted: Size) -> np.ndarray:
    """Label image [H, W] at `wanted` px: each pixel is that at its place, `floor((i + 1/2) f)`."""
    places = (
        np.minimum(((np.arange(m) + 0.5) * n / m).astype(np.int64), n - 1)
        for n, m in zip(ids.shape, wanted, strict=True)
    )
    return ids[np.ix_(*places)]
