"""Runs: the pixels of one class that lie side by side in a row, and the components they make."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Components(NamedTuple):
    """Components or pieces of them, one int64 [n] per quantity; pixels count from 0."""

    class_id: np.ndarray
    area: np.ndarray  # px
    sum_x: np.ndarray  # over the pixels
    sum_y: np.ndarray
    left: np.ndarray  # first column
    right: np.ndarray  # one past the last column
    bottom: np.ndarray  # one past the last row
    first: np.ndarray  # first pixel in raster order, y * page width + x


_JOIN = Components(
    np.minimum, np.add, np.add, np.add, np.minimum, np.maximum, np.maximum, np.minimum
)  # how pieces become one


def take(parts: Components, index) -> Components:
    return Components(*(values[index] for values in parts))


def together(several: Iterable[Components]) -> Components:
    return Components(*map(np.concatenate, zip(*several, strict=True)))


def nothing() -> Components:
    return Components(*np.zeros((len(Components._fields), 0), np.int64))


def find(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First pixels of the runs of equal values in every row, and one past their last, [n] flat."""
    begins = np.ones(rows.shape, bool)
    np.not_equal(rows[:, 1:], rows[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    return starts, np.append(starts[1:], rows.size)


def touching(starts, stops, classes, width: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of one class in neighboring rows: indices of the lower and the upper ones.

    reach: 1 if corners count, else 0.
    """
    lower = np.arange(np.searchsorted(starts, width), len(starts))
    row = starts[lower] // width * width
    left = np.maximum(starts[lower] - reach, row) - width
    right = np.minimum(stops[lower] + reach, row + width) - width - 1
    first = np.searchsorted(starts, left, "right") - 1
    count = np.searchsorted(starts, right, "right") - first
    lower = np.repeat(lower, count)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(count) - count - first, count)
    same = classes[lower] == classes[upper]
    return lower[same], upper[same]


def components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Component of each of `count` nodes, numbered from 0, from the edges between them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def pieces(starts, stops, classes, width: int, top: int) -> Components:
    """Runs as pieces of components; `top` is the page row of flat index 0."""
    row, left = np.divmod(starts, width)
    row += top
    length = stops - starts
    right = left + length
    sum_x = (left + right - 1) * length // 2
    first = row * width + left
    class_id = classes.astype(np.int64)
    return Components(class_id, length, sum_x, row * length, left, right, row + 1, first)


def joined(pieces: Components, group: np.ndarray) -> Components:
    """One part per group, numbered from 0 without gaps."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    columns = zip(_JOIN, pieces, strict=True)
    return Components(*(join.reduceat(values[order], starts) for join, values in columns))
