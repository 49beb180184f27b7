"""Maps of several channels, made slab by slab and written plane by plane."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg import image_io
from feedseg.calibration import Calibration


class Planes:
    """Maps [P, H, W, K] on their way to a file, kept on the disk beside it.

    They come by slabs of rows of all K and are written plane by plane.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], channels: int):
        self._path, self._shape = path, (*shape, channels)
        self._kept = path.with_name(f".{path.name}.{os.getpid()}.raw")
        self._maps: np.memmap | None = None
        self._row = 0  # of all pages

    def __enter__(self) -> "Planes":
        return self

    def __exit__(self, *_) -> None:
        self._maps = None
        self._kept.unlink(missing_ok=True)

    def add(self, slab: np.ndarray) -> None:
        """The next rows of a page, [h, W, K]."""
        count, height, width, channels = self._shape
        if self._maps is None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            order = (count, channels, height, width)
            self._maps = np.memmap(self._kept, np.float32, "w+", shape=order)
        page, row = divmod(self._row, height)
        self._maps[page, :, row : row + len(slab)] = slab.transpose(2, 0, 1)
        self._row += len(slab)

    def write(self, titles: Sequence[str], calibration: Calibration | None) -> None:
        """The file with all of it."""
        pages = (page.transpose(1, 2, 0) for page in self._maps)
        image_io.write_probabilities(self._path, pages, titles, calibration, self._shape)
