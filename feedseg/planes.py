"""Maps of several channels, made slab by slab and written plane by plane."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg import image_io
from feedseg.calibration import Calibration
from feedseg.errors import UserError


class Planes:
    """Maps [P, H, W, K] on their way to a file, kept on the disk beside it.

    They come by slabs of rows of all K and are written plane by plane.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], channels: int):
        self._path, self._shape = path, (*shape, channels)
        self._kept = path.with_name(f".{path.name}.{os.getpid()}.raw")
        self._row = 0  # of all pages

    def __enter__(self) -> "Planes":
        return self

    def __exit__(self, *_) -> None:
        self._kept.unlink(missing_ok=True)

    def add(self, slab: np.ndarray) -> None:
        """The next rows of a page, [h, W, K]. Raises UserError if the disk cannot take them."""
        _, height, width, channels = self._shape
        page, row = divmod(self._row, height)
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            # Not by a memory map: on a full disk that would kill the process.
            with self._kept.open("r+b" if self._row else "wb") as file:
                for channel in range(channels):
                    file.seek(4 * width * ((page * channels + channel) * height + row))
                    file.write(np.ascontiguousarray(slab[..., channel], np.float32))
        except OSError as error:
            raise UserError(
                f"{self._kept}: cannot be written ({error.strerror or error}); free space, these "
                "maps need it twice, or choose another place"
            ) from None
        self._row += len(slab)

    def write(self, titles: Sequence[str], calibration: Calibration | None) -> None:
        """The file with all of it."""
        count, height, width, channels = self._shape
        order = (count, channels, height, width)
        maps = np.memmap(self._kept, np.float32, "r", shape=order)
        pages = (page.transpose(1, 2, 0) for page in maps)
        image_io.write_probabilities(self._path, pages, titles, calibration, self._shape)
