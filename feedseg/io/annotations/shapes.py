"""Shapes on an image and the pixels that they fill.

Coordinates are x to the right and y down, in px, and count the edges of pixels: the upper left
corner of the image is (0, 0), pixel (row i, column j) covers [i, i + 1) x [j, j + 1). A pixel is
filled if its center (j + 1/2, i + 1/2) lies inside the rings by the even-odd rule; centers on a
left or upper edge are inside, on a right or lower one outside. So a rectangle of 10 x 10 px fills
100, a ring inside another is a hole, and shapes that share an edge neither overlap nor leave a gap.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

FARTHEST = 10**8  # px, of a coordinate
MOST_POINTS = 10**5  # of a line
_CROSSINGS = 2**22  # of edges with rows of pixels that are computed at once
_CORNERS = 16  # on a half circle of radius 1 px, times the root of others: 0.005 px off at most

Ring = np.ndarray  # [n, 2] float64, x and y of the corners; the last is joined to the first


class Bitmap(NamedTuple):
    """Pixels [h, w] bool, whose first is the pixel (top, left) of the image."""

    top: int
    left: int
    mask: np.ndarray


class Raster(NamedTuple):
    """A mask as it is stored: its place, size in px, and what decodes it to [height, width] bool.

    `decode` is called where the mask is filled, since all masks of a file may not fit the memory;
    it raises ValueError where they are damaged.
    """

    top: int
    left: int
    height: int
    width: int
    decode: Callable[[], np.ndarray]


class Shape(NamedTuple):
    """What was drawn in one piece: the union of `pieces`, each by the even-odd rule, or a mask.

    where: its file and place there, for messages; names: what it is called, the most exact form
    first, () if it has no name; group: number of a class where the program knows such, else 0;
    page: of a stack, from 1 on, 0: of all.
    """

    where: str
    names: tuple[str, ...]
    pieces: tuple[tuple[Ring, ...], ...] = ()
    raster: Raster | None = None
    group: int = 0
    page: int = 0

    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, px."""
        if self.raster:
            top, left, height, width, _ = self.raster
            return left, top, left + width, top + height
        corners = np.concatenate([ring for piece in self.pieces for ring in piece])
        return (*corners.min(0).tolist(), *corners.max(0).tolist())

    def fill(self, height: int, width: int) -> Iterator[Bitmap]:
        """The pixels of the pieces, as far as they lie inside an image of this size.

        Raises ValueError for a mask that is damaged or larger than the image.
        """
        if self.raster:
            yield _clipped(self.raster, height, width)
        for piece in self.pieces:
            yield fill(piece, height, width)


class Annotated(NamedTuple):
    """The shapes on one image.

    file: that holds them; image: name or path of the image as stated there, "" where the file is
    named after it; size: height and width of the image as stated; order: known class names in the
    file's order.
    """

    file: Path
    shapes: list[Shape]
    image: str = ""
    size: tuple[int, int] | None = None
    order: tuple[str, ...] = ()


def ring(points: object, least: int = 3) -> Ring:
    """Corners from lists of x and y. Raises ValueError unless they are finite pairs of numbers."""
    try:
        corners = np.asarray(points)
    except ValueError:  # lists of different lengths
        corners = np.empty(0)
    if corners.ndim != 2 or corners.shape[1] < 2 or corners.dtype.kind not in "iuf":
        raise ValueError("the coordinates are no list of pairs of numbers [x, y]")
    corners = corners[:, :2].astype(np.float64)  # a third is a height
    if len(corners) < least:
        raise ValueError(f"{len(corners)} corners; an outline needs at least {least}")
    if not (np.abs(corners) <= FARTHEST).all():
        raise ValueError(f"a coordinate is NaN, infinite or beyond {FARTHEST:,} px")
    return corners


def box(left: float, top: float, right: float, bottom: float) -> Ring:
    """A rectangle. Raises ValueError as `ring`."""
    return ring([[left, top], [right, top], [right, bottom], [left, bottom]])


def ellipse(x: float, y: float, across: float, down: float) -> Ring:
    """The ellipse around (x, y) with these semi-axes along x and y, px, as a polygon that lies at
    most 0.005 px inside. Raises ValueError as `ring`.
    """
    radius = min(max(abs(across), abs(down), 1.0), FARTHEST)
    angles = np.linspace(0, 2 * np.pi, 2 * math.ceil(_CORNERS * radius**0.5), endpoint=False)
    return ring(np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], 1))


def stroke(points: Ring, width: float) -> tuple[tuple[Ring, ...], ...]:
    """The pieces of a line of this width with round ends, px: all that lies within width / 2.

    Raises ValueError for more points or a greater width than anybody draws.
    """
    if len(points) > MOST_POINTS or not width <= FARTHEST:
        raise ValueError(f"a line of {len(points)} points, {width:g} px wide; simplify it")
    radius = width / 2
    angles = np.linspace(-np.pi / 2, np.pi / 2, math.ceil(_CORNERS * (1 + radius) ** 0.5))
    pieces = []
    for start, end in zip(points, points[1:] if len(points) > 1 else points, strict=False):
        along = math.atan2(end[1] - start[1], end[0] - start[0])
        half = np.stack([np.cos(angles + along), np.sin(angles + along)], 1) * radius
        pieces.append((np.concatenate([end + half, start - half]),))
    return tuple(pieces)


def fill(rings: Sequence[Ring], height: int, width: int) -> Bitmap:
    """The pixels inside rings by the even-odd rule, the box around them clipped to the image.

    Every edge turns the pixels to the right of it over, row by row: O(edges x rows + pixels). Of
    the rasterizers in Pillow and scikit-image one adds the outline and both know no holes.
    """
    corners = np.concatenate(rings)
    low, high = (np.ceil(limit - 0.5) for limit in (corners.min(0), corners.max(0)))
    left, top = (int(np.clip(v, 0, most)) for v, most in zip(low, (width, height), strict=True))
    right, bottom = (
        int(np.clip(v, 0, most)) for v, most in zip(high, (width, height), strict=True)
    )
    turned = np.zeros((max(0, bottom - top), max(0, right - left) + 1), np.uint8)
    if turned.size > len(turned):
        starts = np.concatenate(rings)
        ends = np.concatenate([np.roll(each, -1, 0) for each in rings])
        step = max(1, _CROSSINGS // len(turned))
        for first in range(0, len(starts), step):
            edges = slice(first, first + step)
            rows, columns = _crossings(starts[edges], ends[edges], top, bottom)
            columns = np.clip(columns, left, right).astype(np.int64) - left
            np.add.at(turned, (rows - top, columns), 1)  # modulo 256, which keeps the parity
    inside = np.bitwise_xor.accumulate(turned & 1, axis=1)[:, :-1]
    return Bitmap(top, left, inside.view(bool))


def _crossings(
    starts: np.ndarray, ends: np.ndarray, top: int, bottom: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows top to bottom whose centers edges cross, and the first column right of each crossing."""
    x, y = starts.T
    run, rise = (ends - starts).T
    first = np.clip(np.ceil(np.minimum(y, y + rise) - 0.5), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, y + rise) - 0.5), top, bottom).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(x)), count)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    crossing = x[edge] + (rows + 0.5 - y[edge]) * run[edge] / rise[edge]
    return rows, np.ceil(crossing - 0.5)


def _clipped(raster: Raster, height: int, width: int) -> Bitmap:
    if raster.height * raster.width > height * width:
        raise ValueError(f"its mask has {raster.height} x {raster.width} px, more than the image")
    rows = slice(max(0, -raster.top), max(0, height - raster.top))
    columns = slice(max(0, -raster.left), max(0, width - raster.left))
    return Bitmap(max(0, raster.top), max(0, raster.left), raster.decode()[rows, columns])
