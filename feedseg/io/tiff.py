"""Strict reading of TIFF files: whatever tifffile only warns about is refused here.

tifffile is lenient by design (a cut stack comes back with fewer pages). Sizes are judged from the
header before anything is decoded, every strip has to be there, and a warning means `BadImage`.
"""

import logging
import math
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import tifffile

from feedseg.io import appearance, limits, ome_header, reading, selection
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.runtime.errors import BadImage, UserError, one_line

SUFFIXES = (".tif", ".tiff", ".lsm", ".svs")
MAX_BYTES = 8 * 2**30  # decoded size of one file
FREE_BYTES = 256 * 2**20  # up to here any compression ratio is accepted (empty masks)
MAX_RATIO = 200  # decoded bytes per stored byte above that
CODEC_RATIO = 1500  # no codec in use stores pixels denser than this
MAX_PAGES = 100_000
_HEADER_BYTES = 8  # of a TIFF: no pixels are before them
RESAVE = "copy the file again or save it anew from Fiji"

_Result = TypeVar("_Result")
_FAILURES = (
    tifffile.TiffFileError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    LookupError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


class _Complaints(logging.Handler):
    """Collects what tifffile logs in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("tifffile"), _Complaints()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def strict(path: Path) -> Iterator[None]:
    """Here every failure and every complaint of tifffile in this thread becomes BadImage."""
    with _listening() as messages:
        try:
            yield
        except UserError:
            raise
        except OSError as error:
            raise BadImage(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None
        except _FAILURES as error:
            reason = one_line(messages[0] if messages else error or type(error).__name__)
            raise BadImage(f"{path}: damaged or unsupported TIFF ({reason}); {RESAVE}") from None
        except Exception as error:
            # imagecodecs raises one class of its own per codec, all derived from RuntimeError
            # or Exception depending on the version.
            if "imagecodecs" not in type(error).__module__:
                raise
            raise BadImage(f"{path}: damaged pixels ({one_line(error)}); {RESAVE}") from None
        if messages:
            reason = one_line(messages[0])
            raise BadImage(f"{path}: damaged or unsupported TIFF ({reason}); {RESAVE}")


def open_tiff(path: Path) -> tifffile.TiffFile:
    """The file alone: an OME-TIFF's other files are not followed."""
    return tifffile.TiffFile(path, _multifile=False)


def strictly(path: Path, work: Callable[[tifffile.TiffFile], _Result]) -> _Result:
    """`work(file)` under `strict`."""
    with strict(path), open_tiff(path) as tif:
        return work(tif)


def main_series(
    path: Path, tif: tifffile.TiffFile, how: ReadOptions = AS_STATED
) -> tifffile.TiffPageSeries:
    """The image of the file, at its full size; smaller embedded previews are passed over.

    Raises BadImage where there are several, listing them, and `how` chooses none.
    """
    if len(tif.pages) > MAX_PAGES:
        raise BadImage(f"{path}: more than {MAX_PAGES} pages; split the stack")
    ome_header.check(path, tif)
    series = tif.series
    if not series or not all(s.size for s in series):
        raise BadImage(f"{path}: the TIFF holds no image; {RESAVE}")
    images = [each for each in series if each is series[0] or not _is_preview(each, series[0])]
    names = [each.name if tif.is_ome else "" for each in images]
    if how.series:
        return images[selection.place(path, names, how.series)]
    if len(images) > 1:
        kinds = (f"{'x'.join(map(str, each.shape))} {each.dtype}" for each in images)
        raise selection.several(path, names, tuple(kinds))
    return images[0]


def _is_preview(series: tifffile.TiffPageSeries, main: tifffile.TiffPageSeries) -> bool:
    """Whether a series is a smaller picture of the main one, or of the slide that it shows."""
    page = series.keyframe
    return series.kind == "svs" or (page.is_reduced and page.size < main.keyframe.size)


def series_number(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> int:
    """The place of a series among all of the file, from 0."""
    return next(number for number, each in enumerate(tif.series) if each is series)


def check_size(path: Path, num_bytes: int, stored: int, limit: float = MAX_BYTES) -> None:
    """Raises BadImage if a file of `stored` bytes claims too many decoded bytes.

    limit: decoded bytes allowed; infinity where they are read piece by piece.
    """
    if num_bytes > limit:
        raise BadImage(
            f"{path}: {num_bytes / 2**30:.1f} GiB of pixels, the limit is "
            f"{limit // 2**30} GiB; split or crop the image"
        )
    if limit < math.inf:
        limits.check_piece(path, num_bytes, "pixels", "split the image or save it in tiles")
    ratio = CODEC_RATIO if num_bytes <= FREE_BYTES else MAX_RATIO
    if num_bytes > ratio * stored:
        raise BadImage(
            f"{path}: claims {num_bytes:,} bytes of pixels in a file of {stored:,} bytes; "
            "the file is cut or damaged"
        )


def _check_page(path: Path, index: int, page, stored: int) -> None:
    """Raises BadImage unless every strip or tile of a page lies inside the file."""
    offsets, counts = page.dataoffsets, page.databytecounts
    key = page.keyframe
    expected = math.prod(key.chunked)
    places = zip(offsets, counts, strict=True)
    inside = all(o >= _HEADER_BYTES and n > 0 and o + n <= stored for o, n in places)
    if len(offsets) != expected or not inside:
        raise BadImage(f"{path}: page {index + 1} is incomplete; {RESAVE}")
    plain = key.compression == 1 and not key.is_tiled and key.bitspersample % 8 == 0
    if plain and sum(counts) != key.size * key.bitspersample // 8:
        raise BadImage(f"{path}: page {index + 1} has the wrong number of bytes; {RESAVE}")


def check_header(path: Path, series: tifffile.TiffPageSeries, limit: float = MAX_BYTES) -> None:
    """Raises BadImage for a size, a type or pages that cannot be right, before decoding.

    limit: decoded bytes allowed, see `check_size`.
    """
    stored = path.stat().st_size
    if series.dtype is None or series.dtype.kind not in "buif":
        raise BadImage(f"{path}: pixel type {series.dtype} is not supported; save as 8 or 16 bit")
    check_size(path, math.prod(series.shape) * series.dtype.itemsize, stored, limit)
    if series.dataoffset is not None:  # one contiguous block, checked as a whole
        num_bytes = series.size * series.dtype.itemsize
        if not _HEADER_BYTES <= series.dataoffset <= stored - num_bytes:
            raise BadImage(f"{path}: the stack is incomplete; {RESAVE}")
        page = series.keyframe
        if len(series.pages) == 1 and series.size > page.size:  # ImageJ's stack under one header
            if sum(page.databytecounts) not in (page.nbytes, num_bytes):
                raise BadImage(f"{path}: page 1 has the wrong number of bytes; {RESAVE}")
            return
    for index, page in enumerate(series.pages):
        if page is None:
            raise BadImage(f"{path}: page {index + 1} is missing; {RESAVE}")
        _check_page(path, index, page, stored)


def has_alpha(page) -> bool:
    """Whether the last sample of a pixel is its opacity."""
    extra = any(int(kind) in (1, 2) for kind in page.extrasamples)
    rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
    return (rgb and page.samplesperpixel == 4) or (extra and page.samplesperpixel == 2)


def is_rgb(page) -> bool:
    """Whether the samples of a page are colors."""
    photometric = tifffile.PHOTOMETRIC
    return page.photometric in (photometric.RGB, photometric.YCBCR, photometric.PALETTE)


def axes_of(path: Path, series: tifffile.TiffPageSeries, how: ReadOptions = AS_STATED) -> str:
    """The axes of an image, as named by `how` or by the file: Y, X; S or C are channels.

    Raises BadImage for axes that are not those of an image, or where pages of a few px in width
    are channels more likely.
    """
    if how.axes:
        return reading.named(path, how.axes, series.shape)
    axes, shape = series.axes, series.shape
    if len(axes) != len(shape) or "Y" not in axes or "X" not in axes:
        raise BadImage(f"{path}: axes {axes} are not those of an image; save as a plain TIFF")
    channels = [size for axis, size in zip(axes, shape, strict=True) if axis in "SC"]
    if sum(size > 1 for size in channels) > 1:
        raise BadImage(f"{path}: channels of RGB images (axes {axes}); split the channels")
    if axes in ("QYX", "IYX"):
        reading.guessed(path, (*shape[:2], 2 if shape[2] in (3, 4) else shape[2]))
    return axes


def read_tiff(
    path: Path, how: ReadOptions = AS_STATED, label: bool = False
) -> tuple[np.ndarray, bool]:
    """Pixels [P, H, W, C] and whether the last channel is an opacity.

    label: class ids, to which no palette is applied; how: see `ReadOptions`.
    Raises BadImage for anything that is not a whole, plain TIFF image.
    """

    def work(tif: tifffile.TiffFile):
        series = main_series(path, tif, how)
        check_header(path, series)
        array = series.asarray(maxworkers=1)
        if array.shape != series.shape:
            raise BadImage(f"{path}: decoded to {array.shape}, announced {series.shape}; {RESAVE}")
        pages, page = reading.to_pages(array, axes_of(path, series, how)), series.keyframe
        seen = appearance.of(path, tif, page, how, label)
        bits, way = page.bitspersample, how.interpret
        pages = appearance.applied(path, pages, seen, label, bits, way)
        return appearance.turned(pages, seen.orientation), has_alpha(page)

    return strictly(path, work)
