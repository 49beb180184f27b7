"""Any height and width through a network of one input shape: overlapping tiles.

Of convolutional networks only the centers of tiles are kept (`plan`), of networks in which a pixel
depends on all others windows are blended (`windows`).

A tile sees its real neighbors: what it keeps lies at least `halo` pixels from every edge that cuts
the image. Where a tile ends at the border of the image, it ends where the whole image would, so
border effects are those of the whole image too. Tile starts are multiples of the network's stride:
a tile is down-sampled on the grid of the whole image. With `halo` at least the radius of the
receptive field, tiled and untiled results are equal.

A network of unpadded convolutions gets the overlap-tile strategy of the original U-Net
(Ronneberger et al., 2015, Fig. 2): the image continues as its mirror image by a margin on every
side, and no tile keeps anything of its margin.

Where a pixel depends on the whole window (attention over all pixels, statistics over the image), no
halo makes tiled and untiled results equal, and an image larger than those of training is new to
the network. It sees windows as large as in training. Neighbors differ where they meet, so one is
faded into the other. With W the window, V the overlap and s_i the starts of windows along an axis,
px, window i counts at pixel x with

    w_i(x) = h_i(x) / sum_j h_j(x),   h_i(x) = r(x + 1/2 - s_i) r(s_i + W - x - 1/2),
    r(d) = sin^4(pi/2 min(d / V, 1)),

without the factor of a side at which the image ends. A pixel (y, x) of window (i, j) counts with
w_i(y) w_j(x); over all windows this adds up to 1. From one pixel to the next the result changes by
at most pi / V of the difference between windows. The fourth power, because close to its edges a
window lacks its neighbors: where windows overlap by half, their outer eighth counts below 3 %.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from feedseg.runtime.errors import UserError
from feedseg.runtime.rounding import round_up

PIECE_BYTES = 4 * 2**20  # of a slab


class Span(NamedTuple):
    """One tile along one axis, in pixels of the padded image."""

    start: int  # first pixel the network sees
    keep: int  # first pixel kept
    stop: int  # one past the last pixel kept


class Plan(NamedTuple):
    """Tiles that cover an image; the same window everywhere."""

    height: int  # of the image, px
    width: int
    window: tuple[int, int]  # rows, columns the network sees at once, multiples of the stride
    padded: tuple[int, int]  # image size after padding, multiples of the stride
    margin: int  # px of mirrored image before the first row and column
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    overlap: int = 0  # px over which windows are blended; 0: every pixel is kept from one tile

    @property
    def num_tiles(self) -> int:
        return len(self.rows) * len(self.columns)


def smallest_tile(halo: int, stride: int) -> int:
    """The smallest tile side that keeps anything of a tile cut on both sides, px."""
    return 2 * round_up(halo, stride) + stride


def automatic_tile(halo: int, stride: int) -> int:
    """A tile side that spends at least half of the work on pixels kept, at least 512 px."""
    return round_up(max(512, 7 * round_up(halo, stride)), stride)


def _spans(padded: int, window: int, halo: int, margin: int) -> tuple[Span, ...]:
    """Tiles along one axis of `padded` pixels; `halo` is a multiple of the stride here."""
    if window == padded:
        return (Span(0, margin, padded - margin),)
    step = window - 2 * halo
    count = -(-(padded - window) // step) + 1
    starts = [min(i * step, padded - window) for i in range(count)]
    edges = [margin, *(start + halo for start in starts[1:]), padded - margin]
    return tuple(map(Span, starts, edges[:-1], edges[1:]))


def plan(
    height: int,
    width: int,
    tile: int,
    halo: int,
    stride: int,
    *,
    mirrored: bool = False,
) -> Plan:
    """Tiles for an image of height x width px.

    tile: side of the window, px, rounded up to the stride; smaller images get a smaller window.
    halo: radius of the receptive field, px, rounded up to the stride. stride: total down-sampling
    of the network, px. mirrored: the image continues as its mirror image by the halo, where the
    network gives no result.
    Raises UserError if an image needs several tiles and a tile has no center left.
    """
    tile, halo = round_up(max(tile, 1), stride), round_up(halo, stride)
    margin = halo if mirrored else 0
    padded = tuple(round_up(side, stride) + 2 * margin for side in (height, width))
    window = (min(tile, padded[0]), min(tile, padded[1]))
    if window != padded and tile < smallest_tile(halo, stride):
        raise UserError(
            f"tiles of {tile} px leave no center inside a halo of {halo} px; "
            f"use --tile {smallest_tile(halo, stride)} or larger"
        )
    rows, columns = (_spans(p, w, halo, margin) for p, w in zip(padded, window, strict=True))
    return Plan(height, width, window, padded, margin, rows, columns)


def windows(height: int, width: int, window: int, overlap: int | None = None) -> Plan:
    """Windows of exactly `window` px, to be blended, for an image of height x width px.

    overlap: px that neighbors share at least, half of the window without it. Windows are evenly
    spread; images smaller than one are filled up to it.
    """
    overlap = window // 2 if overlap is None else overlap
    if not 0 <= overlap < window:
        raise ValueError(f"an overlap of {overlap} px is not within windows of {window} px")
    padded = (max(height, window), max(width, window))
    rows, columns = (_spread(side, window, overlap) for side in padded)
    return Plan(height, width, (window, window), padded, 0, rows, columns, overlap)


def _spread(padded: int, window: int, overlap: int) -> tuple[Span, ...]:
    """Evenly spread windows along one axis; a pixel is done where no later window begins before."""
    count = -(-(padded - window) // (window - overlap)) + 1
    starts = [i * (padded - window) // max(1, count - 1) for i in range(count)]
    return tuple(map(Span, starts, starts, [*starts[1:], padded]))


def blending_weights(spans: Sequence[Span], window: int, overlap: int) -> np.ndarray:
    """w_i(s_i), ..., w_i(s_i + W - 1) of the windows along one axis, [n, W] float32; see above."""
    padded = spans[-1].stop
    rise = np.sin(np.pi / 2 * np.minimum(1, (np.arange(window) + 0.5) / overlap)) ** 4
    weights, total = np.ones((len(spans), window)), np.zeros(padded)
    for weight, span in zip(weights, spans, strict=True):
        if span.start > 0:
            weight *= rise
        if span.start + window < padded:
            weight *= rise[::-1]
        total[span.start : span.start + window] += weight
    for weight, span in zip(weights, spans, strict=True):
        weight /= total[span.start : span.start + window]
    return weights.astype(np.float32)


def padding(layout: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the image that stand at each place of the padded image, int64.

    Rows and columns that are added are mirrored (repeatedly for tiny images), at the center of the
    outermost pixels where the network needs a margin, else at their edge.
    """
    kind = "reflect" if layout.margin else "symmetric"
    rows, columns = (
        np.pad(np.arange(side), (layout.margin, padded - layout.margin - side), mode=kind)
        for padded, side in zip(layout.padded, (layout.height, layout.width), strict=True)
    )
    return rows, columns


def below(layout: Plan, row: int) -> Plan:
    """Only the rows of windows that the image from this row on depends on."""
    height, row = layout.window[0], row + layout.margin
    ends = (span.start + height if layout.overlap else span.stop for span in layout.rows)
    return layout._replace(rows=layout.rows[sum(end <= row for end in ends) :])


def inputs(read: Callable[[int, int], np.ndarray], layout: Plan) -> Iterator[np.ndarray]:
    """What the network sees, window after window by rows, [1, h, w, C].

    read: (first row, one past the last) of the image -> [rows, W, C]. Memory: a row of windows.
    """
    height, width = layout.window
    rows, columns = padding(layout)
    for row in layout.rows:
        seen = rows[row.start : row.start + height]
        first = seen.min()
        strip = read(int(first), int(seen.max()) + 1)
        for column in layout.columns:
            places = np.ix_(seen - first, columns[column.start : column.start + width])
            yield strip[places][None]
        del strip  # before the next is read


def slabs(
    seen: Iterable[np.ndarray],
    network: Callable[[np.ndarray], np.ndarray],
    layout: Plan,
) -> Iterator[np.ndarray]:
    """The network's output from top to bottom, [rows, W, K], about `PIECE_BYTES` at once.

    seen: as `inputs` gives them. network: [1, h, w, C] -> [1, h, w, K] at the window's size.
    Memory: a row of windows of the output.
    """
    outputs = _dispatched(network, seen)
    joined = (_blended if layout.overlap else _centers)(outputs, layout)
    columns = slice(layout.margin, layout.margin + layout.width)
    for row in layout.rows:
        stop = min(row.stop, layout.margin + layout.height)
        yield from _pieces(next(joined)[: stop - row.keep, columns])
    next(joined, None)  # ends what it comes from


def _pieces(slab: np.ndarray) -> Iterator[np.ndarray]:
    """A slab by rows: what others make of it, and keep for a while, stays small too."""
    rows = max(1, PIECE_BYTES * len(slab) // slab.nbytes)
    for top in range(0, len(slab), rows):
        yield slab[top : top + rows].copy()


def _centers(outputs: Iterator[np.ndarray], layout: Plan) -> Iterator[np.ndarray]:
    """What each row of tiles keeps, [rows, padded width, K]."""
    for row in layout.rows:
        slab = None
        for column in layout.columns:
            output = next(outputs)[0]
            if slab is None:
                shape = (row.stop - row.keep, layout.padded[1], output.shape[-1])
                slab = np.empty(shape, output.dtype)
            slab[:, column.keep : column.stop] = output[
                row.keep - row.start : row.stop - row.start,
                column.keep - column.start : column.stop - column.start,
            ]
        yield slab
        del slab


def _blended(outputs: Iterator[np.ndarray], layout: Plan) -> Iterator[np.ndarray]:
    """The weighted sum of windows, [rows, padded width, K], as far as no later window adds to it.

    The weights are known beforehand, so the sum of one row of windows is all that is held.
    """
    height, width = layout.window
    down = blending_weights(layout.rows, height, layout.overlap)
    across = blending_weights(layout.columns, width, layout.overlap)
    held = None
    for row, vertical in zip(layout.rows, down, strict=True):
        for column, horizontal in zip(layout.columns, across, strict=True):
            output = next(outputs)[0]
            if held is None:
                held = np.zeros((height, layout.padded[1], output.shape[-1]), "f4")
            weight = vertical[:, None, None] * horizontal[:, None]
            held[:, column.start : column.start + width] += weight * output
        done = row.stop - row.start
        slab = held[:done].copy()
        held[: height - done] = held[done:]
        held[height - done :] = 0
        yield slab
        del slab


def _dispatched(network: Callable, windows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Results in order; a window is given to the network before the last one's result is awaited,
    so that reading goes on while the device computes.
    """
    waiting: deque = deque()
    for window in windows:
        waiting.append(network(window))
        if len(waiting) > 1:
            yield np.asarray(waiting.popleft())
    while waiting:
        yield np.asarray(waiting.popleft())


def apply_tiled(
    image: np.ndarray,
    network: Callable[[np.ndarray], np.ndarray],
    layout: Plan,
) -> np.ndarray:
    """The network's output for a whole image [H, W, C] float32: [H, W, K] float32; see `slabs`."""
    seen = inputs(lambda first, last: image[first:last], layout)
    return np.concatenate(list(slabs(seen, network, layout)))
