"""Rows of the pages of CZI, ND2 and LIF files; needs the extra `bioio`.

The readers are those of the plug-ins of bioio. Pages are the times and, within each, the slices.
A plane is decoded as a whole, and the last ones are kept.
"""

import importlib
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from feedseg.io import selection
from feedseg.io.block_cache import BlockCache
from feedseg.io.limits import check_piece
from feedseg.io.tiff import MAX_BYTES
from feedseg.runtime.errors import BadImage, UserError, one_line

READERS = {".czi": "bioio_czi", ".nd2": "bioio_nd2", ".lif": "bioio_lif"}
SUFFIXES = tuple(READERS)
KEPT_BYTES = 64 * 2**20  # of planes kept, or those of one page where that is more


class BioRows:
    """Rows of the pages of one series of a file, as stored.

    shape: [P, H, W, C]; dtype: of the pixels; page_axes: those of t and z that are longer than 1;
    channel_names: as far as the file names them; pixel_um: height, width and distance of slices,
    micrometers, None where they are not stated.
    series: number from 1 or name, see `selection.place`; empty: the only one.
    Raises BadImage naming the file for what is damaged, has several series of which none is chosen,
    or is larger than the memory; UserError if the package for it is missing.
    """

    def __init__(self, path: Path, series: str = "") -> None:
        self._path, self._lock = path, threading.Lock()
        bioio, reader = _library(path)
        with _reading(path):
            self._image = bioio.BioImage(path, reader=reader.Reader)
            names = [str(name) for name in self._image.scenes]
        if len(names) > 1 and not series:
            raise selection.several(path, names)
        with _reading(path):
            self._image.set_scene(selection.place(path, names, series) if series else 0)
            self._describe()
        self._check()
        plane = self._plane_bytes()
        self._planes = BlockCache(max(KEPT_BYTES, plane * self.shape[3]))

    def _describe(self) -> None:
        """What the header of the series says."""
        sizes = dict(zip(self._image.dims.order, map(int, self._image.shape), strict=True))
        self._samples = "S" if sizes.get("S", 1) > 1 else ""
        times, slices, self._colors = (sizes.get(axis, 1) for axis in "TZC")
        self._slices, self._unknown = slices, set(sizes) - set("TCZYXS")
        channels = self._colors * (sizes["S"] if self._samples else 1)
        self.shape = (times * slices, sizes["Y"], sizes["X"], channels)
        self.page_axes = tuple((a, n) for a, n in (("t", times), ("z", slices)) if n > 1)
        self.dtype = np.dtype(self._image.dtype)
        self.channel_names = [str(name) for name in self._image.channel_names or ()]
        sizes = self._image.physical_pixel_sizes
        self.pixel_um = tuple(getattr(sizes, axis, None) for axis in "YXZ")

    def _plane_bytes(self) -> int:
        _, height, width, channels = self.shape
        return height * width * (channels // self._colors) * self.dtype.itemsize

    def _check(self) -> None:
        if self._unknown:
            raise BadImage(f"{self._path}: has axes {', '.join(self._unknown)}; save it as TIFF")
        if self._samples and self._colors > 1:
            raise BadImage(f"{self._path}: channels of RGB images; split the channels")
        if min(self.shape) < 1:
            raise BadImage(f"{self._path}: the image is empty, its shape is {self.shape}")
        if self.dtype.kind not in "buif":
            raise BadImage(f"{self._path}: pixel type {self.dtype} is not supported")
        check_piece(self._path, self._plane_bytes(), "a plane", "export it as OME-TIFF in tiles")

    def rows(self, page: int, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C]"""
        with self._lock:
            planes = [self._plane(page, color)[start:stop] for color in range(self._colors)]
            return np.concatenate(planes, -1)  # a copy in any case

    def _plane(self, page: int, color: int) -> np.ndarray:
        """[H, W, 1], or of a color image [H, W, S]."""
        if kept := self._planes.get((page, color)):
            return kept[0]
        time, slice_ = divmod(page, self._slices)
        with _reading(self._path):
            stored = self._image.get_image_dask_data(
                f"YX{self._samples}", T=time, Z=slice_, C=color
            )
            plane = np.asarray(stored.compute(scheduler="synchronous"))
        plane = plane.reshape(*self.shape[1:3], -1)
        self._planes.put((page, color), plane)
        return plane

    def whole(self) -> np.ndarray:
        """All of it, [P, H, W, C]. Raises BadImage if that is too much for the memory."""
        num_bytes = math.prod(self.shape) * self.dtype.itemsize
        check_piece(self._path, num_bytes, "pixels", "export parts of it", MAX_BYTES)
        return np.stack([self.rows(page, 0, self.shape[1]) for page in range(self.shape[0])])

    def close(self) -> None:
        with self._lock:
            self._planes.clear()


def _library(path: Path):
    """bioio and its plug-in for a file. Raises UserError saying how to install them."""
    if not path.is_file():
        raise BadImage(f"{path}: no such file")
    suffix = path.suffix.lower()
    try:
        return importlib.import_module("bioio"), importlib.import_module(READERS[suffix])
    except ImportError:
        raise UserError(
            f'{path}: {suffix} files need more packages: pip install "feedseg[bioio]"'
        ) from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Here every failure of bioio and its plug-ins becomes BadImage."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise BadImage(f"{path}: larger than the memory; export parts of it") from None
    except Exception as error:  # of readers in several languages: all kinds of them
        reason = one_line(error) or type(error).__name__
        raise BadImage(
            f"{path}: damaged or not supported ({reason}); copy it again, or export OME-TIFF from "
            "the microscope's program"
        ) from None
