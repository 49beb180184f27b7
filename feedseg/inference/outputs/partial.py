"""Class ids of an image as they are made, so that a stopped command goes on within the image."""

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from feedseg.runtime import file_lock, files
from feedseg.runtime.errors import UserError

_SIZE = 8  # bytes that say how long a part is


class Unfinished:
    """A hidden file beside `path` that stays if the process is stopped; use it in a `with` block.

    It holds a key and slabs of rows, each compressed, which shows whether it is whole. key: of all
    that the class ids depend on; what was kept under another one does not count; empty: nothing is
    kept, nor where the file cannot be written or another process writes it.
    """

    def __init__(self, path: Path, key: str):
        self._path = path.with_name(f".{path.name}.unfinished")
        self._key = key.encode()
        self._rows, self._end = 0, 0  # that are kept, and the bytes they take
        self._added = 0  # rows
        self._file: BinaryIO | None = None
        self._useless = not key

    def __enter__(self) -> "Unfinished":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._file:
            self._file.close()
        if kind is None or issubclass(kind, UserError):
            files.remove_if_free(self._path)

    def rows(self, width: int) -> Iterator[np.ndarray]:
        """The slabs kept so far, [h, width] uint8."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            if self._useless or _part(file) != self._key:
                return
            while (part := _part(file)) is not None:
                slab = np.frombuffer(part, np.uint8).reshape(-1, width)
                self._rows, self._end = self._rows + len(slab), file.tell()
                yield slab

    def then(self, width: int, rest: Callable[[int], Iterable[np.ndarray]]) -> Iterator[np.ndarray]:
        """The slabs kept so far, [h, width, 1] uint8, then `rest(number of their rows)`."""
        for slab in self.rows(width):
            yield slab[..., None]
        yield from rest(self._rows)

    def add(self, labels: np.ndarray) -> None:
        """The next rows from the top, [h, W] uint8; those that are kept are passed over."""
        self._added += len(labels)
        if self._useless or self._added <= self._rows:
            return
        try:
            if self._file is None:
                self._begin()
            self._put(np.ascontiguousarray(labels))
        except OSError:
            self._useless = True

    def _begin(self) -> None:
        """Open the file, drop what does not count."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab", buffering=0)
        try:
            file_lock.take(file)
        except OSError as error:
            file.close()
            if not isinstance(error, BlockingIOError):  # there are no locks, so the file is ours
                self._path.unlink()
            raise
        file.truncate(self._end)
        self._file = file
        if not self._end:
            self._put(self._key)

    def _put(self, content) -> None:
        part = zlib.compress(content, 1)
        self._file.write(len(part).to_bytes(_SIZE, "little") + part)


def _part(file: BinaryIO) -> bytes | None:
    """The next part, None if there is none or it is not whole."""
    size = int.from_bytes(file.read(_SIZE), "little")
    if size > os.fstat(file.fileno()).st_size:
        return None
    with contextlib.suppress(zlib.error):
        return zlib.decompress(file.read(size))
    return None
