"""Decoded blocks of an image, kept for the slabs that overlap them, in bounded memory."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np


class BlockCache:
    """The blocks used last, up to a number of bytes; several threads may use it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bytes = limit_bytes, 0
        self._blocks: OrderedDict[Hashable, tuple[np.ndarray, tuple]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> tuple | None:
        """The block and what was kept with it; None if it is not here."""
        with self._lock:
            if key not in self._blocks:
                return None
            self._blocks.move_to_end(key)
            block, notes = self._blocks[key]
            return (block, *notes)

    def put(self, key: Hashable, block: np.ndarray, *notes) -> None:
        """Keep a block; the least recently used go when there are too many bytes."""
        with self._lock:
            self._blocks[key] = block, notes
            self._bytes += block.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._blocks.popitem(last=False)[1][0].nbytes

    def clear(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0
