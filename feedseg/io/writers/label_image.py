"""A label image to be written: its pixels and all that a file format may store with them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from feedseg.io.calibration import Calibration


class LabelImage(NamedTuple):
    """Class ids with their meaning.

    labels: [P, H, W] uint8, or an iterable of slabs of rows [h, W], page after page, which keeps
    one slab in memory at a time; then `shape` gives (P, H, W). class_colors: RGB 0-255. axes: name
    ("t" or "z") and length of what the pages run along, slowest first; None: slices.
    """

    labels: np.ndarray | Iterable[np.ndarray]
    class_names: Sequence[str]
    class_colors: Sequence[tuple[int, int, int]]
    calibration: Calibration | None = None
    shape: tuple[int, int, int] | None = None
    axes: Sequence[tuple[str, int]] | None = None

    def size(self) -> tuple[int, int, int]:
        """(P, H, W). Raises ValueError for labels of another form."""
        shape = self.shape
        if isinstance(self.labels, np.ndarray):
            shape = self.labels.shape
            if self.labels.ndim != 3 or self.labels.dtype != np.uint8:
                raise ValueError(
                    f"labels have to be [P, H, W] uint8, not {shape} {self.labels.dtype}"
                )
        if shape is None or len(shape) != 3:
            raise ValueError("labels need the shape (P, H, W)")
        return shape
