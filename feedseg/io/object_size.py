"""How large the objects of each class are, by which images of another scale show.

    d = 2 sqrt(A / pi)

is the diameter of a connected component of area A. Percentiles are weighted by area, so that specks
do not count: half of a class's pixels lie in objects larger than the median.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

LEAST_OBJECTS = 5  # of a class, to say how large they are
_CLUMP = 0.5  # of an image's side: larger than that it is a texture, no object


class Diameters(NamedTuple):
    """Percentiles 10, 50 and 90 of a class, px."""

    low: float
    median: float
    high: float


def diameters(labels: Iterable[np.ndarray], num_classes: int) -> dict[int, Diameters]:
    """Of the classes from 1 on that consist of objects, over all label images [h, w]."""
    areas: dict[int, list[np.ndarray]] = {each: [] for each in range(1, num_classes)}
    side = 0.0
    for label in labels:
        side = max(side, min(label.shape))
        for each in areas:
            areas[each].append(_areas(label == each))
    found = {each: _percentiles(np.concatenate(some)) for each, some in areas.items() if some}
    return {each: size for each, size in found.items() if size and size.median < _CLUMP * side}


def _areas(mask: np.ndarray) -> np.ndarray:
    """Pixels of each connected component, corners included."""
    from scipy import ndimage

    if not mask.any():
        return np.zeros(0, np.int64)
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.bincount(parts.ravel())[1:]


def _percentiles(areas: np.ndarray) -> Diameters | None:
    if len(areas) < LEAST_OBJECTS:
        return None
    areas = np.sort(areas)
    reached = np.cumsum(areas) / areas.sum()
    chosen = areas[np.searchsorted(reached, (0.1, 0.5, 0.9))]
    return Diameters(*np.round(2 * np.sqrt(chosen / np.pi), 1).tolist())
