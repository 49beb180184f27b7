"""Rows of the pages of an OME-Zarr image (OME-NGFF up to 0.5); needs the extra `zarr`.

Pages are the times and, within each, the slices; axes are known by their names. Chunks are decoded
as blocks of rows over the whole width, and the last blocks are kept, so that overlapping slabs do
not decode them twice.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from feedseg.io import ngff
from feedseg.io.block_cache import BlockCache
from feedseg.io.limits import check_piece
from feedseg.io.tiff import check_size
from feedseg.runtime.errors import BadImage, UserError, one_line

BLOCK_BYTES = 4 * 2**20  # decoded at once, or one row of chunks where that is more
KEPT_BYTES = 32 * 2**20  # of blocks kept, or two blocks where that is more
CHUNK_BYTES = 2**30  # of the largest chunk: it is decoded as a whole, 3 times as much is in use
VOLUME_BYTES = 256 * 2**20  # pages that share their chunks are decoded together up to this


class ZarrRows:
    """Rows of the pages of an OME-Zarr image, as stored.

    shape: [P, H, W, C]; dtype: of the pixels; page_axes: those of t and z that it has, with their
    lengths. Raises BadImage naming the folder for what is no image, UserError if the Zarr library
    is missing.
    """

    def __init__(self, path: Path, series: str = "") -> None:
        """series: of a folder that holds several images, see `ngff.find`."""
        layout = ngff.find(path, series)
        self._path, self._array = path, _open(path, layout.array)
        self._axes = layout.axes or _usual_axes(path, self._array.shape)
        sizes, chunks = self._by_name(self._array.shape), self._by_name(self._array.chunks)
        self._slices = sizes["z"]
        self.shape = (sizes["t"] * sizes["z"], sizes["y"], sizes["x"], sizes["c"])
        self.page_axes = tuple((name, sizes[name]) for name in "tz" if name in self._axes)
        self.dtype = self._array.dtype
        self._check()
        row = sizes["x"] * sizes["c"] * self.dtype.itemsize
        self._check_chunks(sizes, chunks)
        depth, height = min(chunks["z"], sizes["z"]), min(chunks["y"], sizes["y"])
        self._depth = depth if row * sizes["y"] * depth <= VOLUME_BYTES else 1
        band = row * height * self._depth
        self._height = height * max(1, BLOCK_BYTES // band)
        limit = VOLUME_BYTES if self._depth > 1 else KEPT_BYTES
        self._blocks = BlockCache(max(limit, 2 * row * self._height * self._depth))
        self._lock = threading.Lock()

    def _by_name(self, sizes: tuple[int, ...]) -> dict[str, int]:
        """Sizes of all axes; 1 for those that the array lacks."""
        if len(sizes) != len(self._axes):
            raise BadImage(
                f"{self._path}: the array has {len(sizes)} axes, its metadata name "
                f"{len(self._axes)} ({', '.join(self._axes)})"
            )
        return dict.fromkeys(ngff.AXES, 1) | dict(zip(self._axes, sizes, strict=True))

    def _check_chunks(self, sizes: dict[str, int], chunks: dict[str, int]) -> None:
        """Raises BadImage where a chunk, or those beside one another with a row, are too large."""
        chunk = math.prod(chunks.values()) * self.dtype.itemsize
        across = math.prod(math.ceil(sizes[axis] / chunks[axis]) for axis in "cx")
        what = f"chunks of {' x '.join(map(str, self._array.chunks))}"
        remedy = "write the image with smaller chunks"
        check_piece(self._path, chunk, what, remedy, CHUNK_BYTES)
        check_piece(self._path, chunk * across, f"a row of {what}", remedy)

    def require_chunks(self, fill_missing: bool) -> None:
        """Raises BadImage where chunks have no file, unless they are to be the fill value."""
        if fill_missing:
            return
        with reading(self._path):
            from feedseg.io import zarr_chunks

            missing, total = zarr_chunks.absent(self._array)
        if missing:
            raise BadImage(
                f"{self._path}: {missing} of {total} chunks have no file: copied in part, or "
                f"written without its empty chunks; copy it again, or read them as "
                f"{self._array.fill_value or 0} with --fill-missing (in training "
                "--config.data.fill_missing=True)"
            )

    def _check(self) -> None:
        shape = self._array.shape
        known = tuple(ngff.AXES)
        others = [a for a, n in zip(self._axes, shape, strict=True) if a not in known and n > 1]
        if others:
            axis = one_line(others[0]) if others[0] else "without a name"
            raise BadImage(f"{self._path}: has an axis {axis}; only t, c, z, y, x are read")
        if min(shape) < 1:
            raise BadImage(f"{self._path}: the image is empty, its shape is {shape}")
        if min(self._array.chunks) < 1:
            raise BadImage(f"{self._path}: damaged, its chunks are {self._array.chunks} px")
        if self.dtype.kind not in "buif":
            raise BadImage(
                f"{self._path}: pixel type {self.dtype} is not supported; save as 8 or 16 bit"
            )

    def rows(self, page: int, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C], as stored."""
        time, place = divmod(page, self._slices)
        first = place - place % self._depth
        tops = range(start - start % self._height, stop, self._height)
        with self._lock:
            parts = []
            for top in tops:
                block = self._block(time, first, top)[place - first]
                parts.append(block[max(0, start - top) : stop - top])
            return np.concatenate(parts)  # a copy in any case

    def _block(self, time: int, first: int, top: int) -> np.ndarray:
        """Rows from `top` on of the slices from `first` on, [D, h, W, C]."""
        key = (time, first, top)
        if kept := self._blocks.get(key):
            return kept[0]
        slices, rows = slice(first, first + self._depth), slice(top, top + self._height)
        block = self._read(t=slice(time, time + 1), z=slices, y=rows)[0]
        self._blocks.put(key, block)
        return block

    def _read(self, **window: slice) -> np.ndarray:
        """Part of the array as [T, Z, H, W, C]."""
        with reading(self._path):
            part = self._array[tuple(window.get(axis, slice(None)) for axis in self._axes)]
        part = np.asarray(part)
        names = [axis for axis in "tzyxc" if axis in self._axes]
        names = [axis for axis in self._axes if axis not in names] + names
        sizes = self._by_name(part.shape)
        moved = part.transpose([self._axes.index(axis) for axis in names])
        return moved.reshape([sizes[axis] for axis in "tzyxc"])

    def whole(self) -> np.ndarray:
        """All of it, [P, H, W, C]. Raises BadImage if that is too much for the memory."""
        check_size(self._path, math.prod(self.shape) * self.dtype.itemsize, 2**62)
        return self._read().reshape(self.shape)

    def close(self) -> None:
        with self._lock:
            self._blocks.clear()


def library(path: Path):
    """The module `zarr`. Raises UserError saying how to install it where it is missing."""
    try:
        import zarr
    except ImportError:
        raise UserError(
            f'{path}: OME-Zarr needs one more package: pip install "feedseg[zarr]"'
        ) from None
    return zarr


def _open(path: Path, folder: Path):
    zarr = library(path)
    with reading(path):
        array = zarr.open_array(str(folder), mode="r")
        steps = array.filters + array.compressors
    if any(getattr(step, "codec_id", "") == "pickle" for step in steps):
        raise BadImage(f"{path}: stored as Python pickles, which are not loaded; write it anew")
    with reading(path):
        from feedseg.io import zarr_chunks

        return zarr_chunks.checked(array, folder, CHUNK_BYTES)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Here every failure of the Zarr library becomes BadImage."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise BadImage(f"{path}: larger than the memory; split or crop the image") from None
    except Exception as error:  # of the store, of the metadata, of a codec: all kinds of them
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise BadImage(
            f"{path}: damaged or unsupported Zarr ({reason}); copy the folder again"
        ) from None


def _usual_axes(path: Path, shape: tuple[int, ...]) -> tuple[str, ...]:
    """What the axes of an array without names are taken for, as of .npy files."""
    axes = {2: "yx", 3: "yxc" if shape[-1] in (3, 4) else "zyx", 4: "zyxc"}.get(len(shape))
    if axes is None:
        raise BadImage(
            f"{path}: a Zarr array of shape {shape} without the names of its axes; give the folder "
            "of the image with its OME metadata"
        )
    return tuple(axes)
