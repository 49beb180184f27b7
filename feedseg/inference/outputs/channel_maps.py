"""Maps of several channels, made slab by slab and written plane by plane."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from feedseg.io.calibration import Calibration
from feedseg.io.source import SLAB_BYTES
from feedseg.io.writers import imagej
from feedseg.runtime import files
from feedseg.runtime.errors import SaveFailed

TYPES = ("float32", "float16", "uint8")  # uint8: 255 p to the nearest


def encoded(probabilities: np.ndarray, kind: str) -> np.ndarray:
    """Probabilities in one of `TYPES`."""
    if kind == "uint8":
        return np.rint(probabilities * np.float32(255)).astype(np.uint8)
    return probabilities.astype(kind, copy=False)


class Planes:
    """Maps [P, H, W, K] on their way to a file, kept on the disk beside it.

    They come by slabs of rows of all K and are read plane by plane. shape: (P, H, W); dtype: of
    what is kept.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], channels: int, dtype="float32"):
        self._path, self._shape, self._type = path, (*shape, channels), np.dtype(dtype)
        self._files = ExitStack()
        self._kept: Path | None = None
        self._row = 0  # of all pages

    def __enter__(self) -> "Planes":
        return self

    def __exit__(self, *_) -> None:
        self._files.close()

    def add(self, slab: np.ndarray) -> None:
        """The next rows of a page, [h, W, K]. Raises UserError if the disk cannot take them."""
        _, height, width, channels = self._shape
        size = self._type.itemsize
        page, row = divmod(self._row, height)
        try:
            if self._kept is None:
                self._kept = self._files.enter_context(files.temporary(self._path, ".raw"))
            # Not by a memory map: on a full disk that would kill the process.
            with self._kept.open("r+b") as file:
                for channel in range(channels):
                    file.seek(size * width * ((page * channels + channel) * height + row))
                    file.write(np.ascontiguousarray(slab[..., channel], self._type))
        except OSError as error:
            raise SaveFailed(
                f"{self._path}: cannot be written ({error.strerror or error}); free space, these "
                "maps need it twice, or choose another place"
            ) from None
        self._row += len(slab)

    def slabs(self) -> Iterator[np.ndarray]:
        """Slabs of rows [h, W], channel after channel of each page."""
        count, height, width, channels = self._shape
        rows = max(1, SLAB_BYTES // (width * self._type.itemsize))
        with self._kept.open("rb") as file:  # a memory map would count all it read as memory
            for _ in range(count * channels):
                for top in range(0, height, rows):
                    size = min(rows, height - top) * width
                    yield np.fromfile(file, self._type, size).reshape(-1, width)

    def write(
        self,
        path: Path,
        titles: Sequence[str],
        calibration: Calibration | None,
        axes: Sequence[tuple[str, int]],
    ) -> None:
        """A file of channels with all of it; axes: of the pages, as `page_axes` gives them."""
        imagej.write_probabilities(
            path, self.slabs(), titles, calibration, self._shape, self._type, axes
        )
