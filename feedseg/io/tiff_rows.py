"""Rows of TIFF pages without the rest of the file.

Uncompressed rows are read where they lie; the file is not kept mapped, since mapped pages count as
memory in use. Of all other pages only the strips or tiles that the rows touch are decoded, and the
last ones are kept, so that overlapping slabs do not decode them twice.
"""

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile

from feedseg.io import reading, tiff
from feedseg.io.block_cache import BlockCache
from feedseg.runtime.errors import BadImage

KEPT_BYTES = 32 * 2**20  # decoded segments kept; one row of segments of a page where that is more
READ_BYTES = 4 * 2**20  # stored bytes read at once before they are decoded
_JPEG = (6, 7, 33007, 34892)  # compressions whose tables stand outside the segments


def plane_table(series: tifffile.TiffPageSeries, axes: str) -> np.ndarray | None:
    """Which planes of the file make up each page, [P, n]; None if none do.

    A plane is [H, W, samples], as many of them after one another as the file has; the channels of
    a page are the samples of its n planes.
    """
    separate, depth, height, width, samples = series.keyframe.shaped
    y = axes.find("Y")
    before, after = series.shape[: max(y, 0)], series.shape[y + 2 :]
    whole = (
        axes[y : y + 2] == "YX"
        and series.shape[y : y + 2] == (height, width)
        and set(axes[y + 2 :]) <= set("SC")
        and math.prod(after) == samples
        and depth == 1
        and series.transform is None
        and series.keyframe.jpegheader is None  # NDPI: strips of its own kind
        and (series.dataoffset is not None or math.prod(before) == len(series) * separate)
    )
    if not whole:
        return None
    numbers = np.arange(math.prod(before) * samples).reshape(*before, 1, 1, *after)
    return reading.to_pages(numbers, axes)[:, 0, 0, ::samples] // samples


class TiffRows:
    """Rows of the pages of an open TIFF file, as stored."""

    def __init__(
        self,
        path: Path,
        file: tifffile.TiffFile,
        series: tifffile.TiffPageSeries,
        planes: np.ndarray,
    ) -> None:
        self._path, self._file, self._series, self._planes = path, file, series, planes
        self._separate, _, self._height, self._width, self._samples = series.keyframe.shaped
        self._row_bytes = self._width * self._samples * series.dtype.itemsize
        self._decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        self._lock = threading.Lock()
        band = _band_bytes(series.keyframe, series.dtype)
        if series.dataoffset is None:
            self._check_alike()
            tiff.check_size(path, band, path.stat().st_size)
        self._blocks = BlockCache(max(KEPT_BYTES, band * planes.shape[1]))

    def _check_alike(self) -> None:
        first = self._series.keyframe
        for index, page in enumerate(self._series):
            key = page.keyframe
            if (key.shaped, key.dtype) != (first.shaped, first.dtype):
                raise BadImage(
                    f"{self._path}: page {index + 1} differs from the first in size or type; "
                    f"{tiff.RESAVE}"
                )

    def close(self) -> None:
        self._decoders.shutdown()
        self._file.close()
        self._blocks.clear()

    def rows(self, page: int, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C], in native byte order."""
        with self._lock, tiff.strict(self._path):
            parts = [self._plane(int(plane), start, stop) for plane in self._planes[page]]
            return parts[0] if len(parts) == 1 else np.concatenate(parts, -1)

    def _plane(self, plane: int, start: int, stop: int) -> np.ndarray:
        """Rows of one plane, [stop - start, W, samples]."""
        if self._series.dataoffset is not None:
            return self._stored(self._series.dataoffset, plane, start, stop)
        number, separate = divmod(plane, self._separate)
        page = self._series[number]
        if page.keyframe.is_final:
            return self._stored(page.dataoffsets[0], separate, start, stop)
        return self._decoded(page, number, separate, start, stop)

    def _stored(self, offset: int, plane: int, start: int, stop: int) -> np.ndarray:
        """Uncompressed rows that lie one after the other from `offset` on."""
        series, shape = self._series, (stop - start, self._width, self._samples)
        at = offset + (plane * self._height + start) * self._row_bytes
        kind = self._file.byteorder + series.dtype.char
        return self._file.filehandle.read_array(kind, math.prod(shape), at).reshape(shape)

    def _decoded(self, page, number: int, separate: int, start: int, stop: int) -> np.ndarray:
        """Rows from the strips or tiles of a page that hold them."""
        key = page.keyframe
        pixels = np.empty((stop - start, self._width, self._samples), self._series.dtype)
        tables = {"jpegtables": page.jpegtables} if key.compression in _JPEG else {}
        decoder = key.decode  # made here: complaints are heard in this thread

        def decode(stored: tuple[bytes, int]) -> None:
            segment, (_, _, top, left, _), _ = decoder(*stored, **tables)
            self._blocks.put((number, stored[1]), segment[0], top, left)
            _place(segment[0], top, left, pixels, start)

        missing = []
        for index in _segments(key, separate, start, stop):
            kept = self._blocks.get((number, index))
            if kept is None:
                missing.append(index)
            else:
                _place(*kept, pixels, start)
        for batch in self._stored_segments(page, missing):
            for _ in self._decoders.map(decode, batch):
                pass
        return pixels

    def _stored_segments(self, page, indices: list[int]) -> Iterator[list[tuple[bytes, int]]]:
        """Segments as stored, with their indices, about READ_BYTES at a time."""
        return self._file.filehandle.read_segments(
            [page.dataoffsets[index] for index in indices],
            [page.databytecounts[index] for index in indices],
            indices=indices,
            flat=False,
            buffersize=READ_BYTES,
        )


def _band_bytes(key: tifffile.TiffPage, kind: np.dtype) -> int:
    """Bytes of the strips or tiles beside one another that hold one row of a plane."""
    width = math.ceil(key.imagewidth / key.tilewidth) * key.tilewidth if key.is_tiled else 0
    height = key.tilelength if key.is_tiled else min(key.rowsperstrip, key.imagelength)
    return height * (width or key.imagewidth) * key.shaped[4] * kind.itemsize


def _segments(key: tifffile.TiffPage, separate: int, start: int, stop: int) -> range:
    """Indices of the strips or tiles that hold the rows `start` to `stop` of a plane."""
    height = key.tilelength if key.is_tiled else key.rowsperstrip
    across = math.ceil(key.imagewidth / key.tilewidth) if key.is_tiled else 1
    first = separate * math.ceil(key.imagelength / height)
    return range((first + start // height) * across, (first + (stop - 1) // height + 1) * across)


def _place(segment: np.ndarray, top: int, left: int, pixels: np.ndarray, start: int) -> None:
    """Copies the part of a segment at (top, left) that lies in the rows from `start` on."""
    first, stop = max(top, start), min(top + segment.shape[0], start + pixels.shape[0])
    width = min(segment.shape[1], pixels.shape[1] - left)
    part = segment[first - top : stop - top, :width]
    pixels[first - start : stop - start, left : left + width] = part
