"""How large the objects of each class are, by which images of another scale show.

    d = 2 sqrt(A / pi)

is the diameter of a connected component of area A. Percentiles are weighted by area, so that specks
do not count: half of a class's pixels lie in objects larger than the median. Classes of thin
structures, such as membranes, have no objects: the largest disc inside is much smaller than d.
Components whose rim is mostly void (255) are strokes of a partly labeled image, no objects.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LEAST_OBJECTS = 5  # of a class, to say how large they are
_CLUMP = 0.5  # of an image's side: larger than that it is a texture, no object
_VOID = 255  # label of pixels that nobody labeled
_THIN = 0.3  # of d: the diameter of the largest disc inside


class Diameters(NamedTuple):
    """Percentiles 10, 50 and 90 of a class, px."""

    low: float
    median: float
    high: float


class ObjectSizes:
    """Sizes of the objects in label images, class by class."""

    def __init__(self, num_classes: int) -> None:
        self._objects: dict[int, list[np.ndarray]] = {each: [] for each in range(1, num_classes)}
        self._side = 0

    def add(self, label: np.ndarray, scale: float = 1.0) -> None:
        """One more image, [h, w], measured as if it were `scale` times as large."""
        self._side = max(self._side, scale * max(label.shape))
        for each, found in self._objects.items():
            areas, inside = _measured(label == each, label == _VOID)
            found.append(np.stack([areas * scale**2, inside * scale]))

    def diameters(self) -> dict[int, Diameters]:
        """Of the classes that consist of objects."""
        known = {each: some for each, some in self._objects.items() if some}
        found = {each: _percentiles(np.concatenate(some, 1)) for each, some in known.items()}
        most = _CLUMP * self._side
        return {each: size for each, size in found.items() if size and size.median < most}


def diameters(labels: Iterable[np.ndarray], num_classes: int) -> dict[int, Diameters]:
    """Of the classes from 1 on that consist of objects, over all label images [h, w]."""
    sizes = ObjectSizes(num_classes)
    for label in labels:
        sizes.add(label)
    return sizes.diameters()


def _measured(mask: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Area and diameter of the largest disc inside of each component, corners included, [2, n]."""
    from scipy import ndimage

    if not mask.any():
        return np.zeros((2, 0))
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    inside = 2 * ndimage.maximum(depth, parts, np.arange(1, count + 1)) - 1
    return np.stack([np.bincount(parts.ravel())[1:], inside])[:, ~_strokes(parts, void, count)]


def _strokes(parts: np.ndarray, void: np.ndarray, count: int) -> np.ndarray:
    """Whether most of the pixels around a component are void, [count] bool."""
    from scipy import ndimage

    if not void.any():
        return np.zeros(count, bool)
    around = np.where(parts == 0, ndimage.grey_dilation(parts, (3, 3)), 0)
    rim, unknown = (np.bincount(around[at], minlength=count + 1) for at in (around > 0, void))
    return (2 * unknown > rim)[1:]


def _percentiles(objects: np.ndarray) -> Diameters | None:
    areas, inside = objects
    if len(areas) < LEAST_OBJECTS:
        return None
    sizes = 2 * np.sqrt(areas / np.pi)
    if _weighted(inside / sizes, areas, (0.5,))[0] < _THIN:
        return None
    return Diameters(*np.round(_weighted(sizes, areas, (0.1, 0.5, 0.9)), 1).tolist())


def _weighted(values: np.ndarray, weights: np.ndarray, parts: Sequence[float]) -> np.ndarray:
    """The values that these parts of the weights do not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.searchsorted(reached, parts)]
