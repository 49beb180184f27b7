"""Zip archives and arrays that anybody may have made: unpacked up to a limit and no further.

What the directory of an archive and the header of an array say of their sizes is not believed.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 4 * 2**30  # of one member
FREE = 64 * 2**20  # bytes that any archive may unpack to; a larger one
RATIO = 20  # times its own size, far more than weights shrink
BROKEN = (  # what a damaged archive raises
    OSError,
    EOFError,
    KeyError,  # a file is missing in it
    RuntimeError,  # encrypted, or a compression that is not known
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit


class Archive:
    """A zip archive for reading; use it in a `with` block.

    source: its path or its bytes. outer: the archive that it lies in, whose limit for all members
    together counts on.
    Its methods raise ValueError for a member that unpacks to too much, and others of `BROKEN`.
    """

    def __init__(self, source: Path | bytes, outer: "Archive | None" = None):
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        self._root = outer._root if outer else self
        self._left = FREE + RATIO * size
        self._zip = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        self.names = self._zip.namelist()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self._zip.close()

    def read(self, name: str, most_bytes: int) -> bytes:
        """The content of a member. KeyError if there is none of this name."""
        entry = self._zip.getinfo(name)
        if entry.compress_type not in _METHODS:
            raise ValueError(f"{name} is compressed by a method that is not read")
        most_bytes = min(most_bytes, self._root._left, MOST_BYTES)
        content = bytearray()
        if entry.file_size <= most_bytes:
            with self._zip.open(entry) as stream:
                while (chunk := stream.read(_CHUNK)) and len(content) <= most_bytes:
                    content += chunk
        if max(entry.file_size, len(content)) > most_bytes:
            raise ValueError(f"{name} unpacks to more than the {most_bytes:,} bytes it may have")
        self._root._left -= len(content)
        return bytes(content)


def parse_npy(data: bytes) -> np.ndarray:
    """The array of numbers in the bytes of a .npy file, read-only.

    Raises ValueError if it is damaged or holds anything else than numbers.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, columns_first, kind = readers[version[0]](stream)
    except Exception as error:  # a damaged header raises almost anything, SyntaxError included
        raise ValueError(f"no header of a .npy file ({type(error).__name__})") from None
    if kind.kind not in "biuf":
        raise ValueError(f"an array of {kind}, not of numbers")
    array = np.frombuffer(data, kind, offset=stream.tell())
    if array.size != np.prod(shape, dtype=object) or min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape} with {array.size} values")
    return array.reshape(shape, order="F" if columns_first else "C")
