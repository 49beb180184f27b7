"""A small picture of a large segmented image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg.io import colors
from feedseg.io.source import ImageSource
from feedseg.runtime.files import write_atomically

SIDE = 2048  # px, at most


class Preview:
    """The first page, every n-th pixel of it, tinted by class.

    The labels come by slabs of rows [h, W] from the top; size: (H, W) of the page.
    """

    def __init__(self, size: tuple[int, int]):
        self._height = size[0]
        self._step = -(-max(size) // SIDE)
        self._rows: list[np.ndarray] = []
        self._seen = 0

    def add(self, labels: np.ndarray) -> None:
        """The next rows; those of later pages are passed over."""
        if self._seen < self._height:
            first = -self._seen % self._step
            self._rows.append(labels[first :: self._step, :: self._step].copy())
        self._seen += len(labels)

    def write(
        self, path: Path, source: ImageSource, class_colors: Sequence[tuple[int, int, int]]
    ) -> None:
        """The picture as PNG. Raises SaveFailed if it cannot be written."""
        from PIL import Image

        lines = range(0, self._height, self._step)
        image = np.concatenate([source.rows(0, y, y + 1)[:, :: self._step] for y in lines])
        picture = Image.fromarray(colors.overlay(image, np.concatenate(self._rows), class_colors))
        write_atomically(path, lambda temporary: picture.save(temporary, "PNG"))
