"""Any height and width through a network of one input shape: overlapping tiles, only centres kept.

A tile sees its real neighbours: what it keeps lies at least `halo` pixels from every edge that cuts
the image. Where a tile ends at the border of the image, it ends where the whole image would, so
border effects are those of the whole image too. Tile starts are multiples of the network's stride:
a tile is down-sampled on the grid of the whole image. With `halo` at least the radius of the
receptive field, tiled and untiled results are equal (networks with global attention or with
statistics over the image excepted).

A network of unpadded convolutions gets the overlap-tile strategy of the original U-Net
(Ronneberger et al., 2015, Fig. 2): the image continues as its mirror image by a margin on every
side, and no tile keeps anything of its margin.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from feedseg.errors import UserError


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

    @property
    def num_tiles(self) -> int:
        return len(self.rows) * len(self.columns)


def round_up(size: int, stride: int) -> int:
    """The smallest multiple of `stride` that is at least `size`."""
    return -(-size // stride) * stride


def smallest_tile(halo: int, stride: int) -> int:
    """The smallest tile side that keeps anything of a tile cut on both sides, px."""
    return 2 * round_up(halo, stride) + stride


def automatic_tile(halo: int, stride: int) -> int:
    """A tile side that spends at least half of the work on pixels kept, at least 512 px."""
    return round_up(max(512, 7 * round_up(halo, stride)), stride)


def whole_image_halo(window: int, halo: int, stride: int) -> int:
    """Overlap for networks in which all pixels of a window depend on one another, px.

    No halo makes tiled and untiled results equal there; a quarter of the window on each side leaves
    half of it to keep.
    """
    return min(halo, window // 4 // stride * stride)


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
    exact: bool = False,
    mirrored: bool = False,
) -> Plan:
    """Tiles for an image of height x width px.

    tile: side of the window, px, rounded up to the stride; smaller images get a smaller window, or
    with `exact` are filled up to it. halo: radius of the receptive field, px, rounded up to the
    stride. stride: total down-sampling of the network, px. mirrored: the image continues as its
    mirror image by the halo, where the network gives no result.
    Raises UserError if an image needs several tiles and a tile has no centre left.
    """
    tile, halo = round_up(max(tile, 1), stride), round_up(halo, stride)
    least = tile if exact else 0
    margin = halo if mirrored else 0
    padded = tuple(max(round_up(side, stride) + 2 * margin, least) for side in (height, width))
    window = (min(tile, padded[0]), min(tile, padded[1]))
    if window != padded and tile < smallest_tile(halo, stride):
        raise UserError(
            f"tiles of {tile} px leave no centre inside a halo of {halo} px; "
            f"use --tile {smallest_tile(halo, stride)} or larger"
        )
    rows, columns = (_spans(p, w, halo, margin) for p, w in zip(padded, window, strict=True))
    return Plan(height, width, window, padded, margin, rows, columns)


def padding(layout: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the image that stand at each place of the padded image, int64.

    Rows and columns that are added are mirrored (repeatedly for tiny images), at the centre of the
    outermost pixels where the network needs a margin, else at their edge.
    """
    kind = "reflect" if layout.margin else "symmetric"
    rows, columns = (
        np.pad(np.arange(side), (layout.margin, padded - layout.margin - side), mode=kind)
        for padded, side in zip(layout.padded, (layout.height, layout.width), strict=True)
    )
    return rows, columns


def strips(read: Callable[[int, int], np.ndarray], layout: Plan) -> Iterator[np.ndarray]:
    """What a row of tiles sees, [h, padded width, C], from top to bottom.

    read: (first row, one past the last) of the image -> [rows, W, C].
    """
    rows, columns = padding(layout)
    for span in layout.rows:
        seen = rows[span.start : span.start + layout.window[0]]
        first, last = int(seen.min()), int(seen.max())
        yield read(first, last + 1)[seen - first][:, columns]


def slabs(
    seen: Iterable[np.ndarray],
    network: Callable[[np.ndarray], np.ndarray],
    layout: Plan,
) -> Iterator[np.ndarray]:
    """The network's output from top to bottom, [rows, W, K] float32, a slab per row of tiles.

    seen: of `strips`. network: [1, h, w, C] -> [1, h, w, K] at the window's size.
    """
    height, width = layout.window
    outputs = _dispatched(
        network,
        (
            np.ascontiguousarray(strip[None, :height, column.start : column.start + width])
            for strip in seen
            for column in layout.columns
        ),
    )
    for row in layout.rows:
        slab = None
        for column in layout.columns:
            output = next(outputs)[0]
            if slab is None:
                slab = np.empty((row.stop - row.keep, layout.padded[1], output.shape[-1]), "f4")
            slab[:, column.keep : column.stop] = output[
                row.keep - row.start : row.stop - row.start,
                column.keep - column.start : column.stop - column.start,
            ]
        stop = min(row.stop, layout.margin + layout.height)
        yield slab[: stop - row.keep, layout.margin : layout.margin + layout.width]


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
    seen = strips(lambda first, last: image[first:last], layout)
    return np.concatenate(list(slabs(seen, network, layout)))
