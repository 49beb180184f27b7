"""Slabs of rows of any height as strips of equal height."""

from collections.abc import Iterable, Iterator

import numpy as np


def in_strips(slabs: Iterable[np.ndarray], height: int, rows: int) -> Iterator[np.ndarray]:
    """Slabs of whole pages as strips of `rows` rows; only the last of a page may be lower.

    slabs: [h, W] from top to bottom, page after page; height: of a page.
    """
    kept, done = [], 0  # slabs not yet given, rows of this page given
    for slab in slabs:
        kept.append(slab)
        have = sum(len(part) for part in kept)
        while have and have >= min(rows, height - done):
            page = np.concatenate(kept) if len(kept) > 1 else kept[0]
            count = min(rows, height - done)
            yield np.ascontiguousarray(page[:count])
            kept, have = [page[count:]], have - count
            done = (done + count) % height
