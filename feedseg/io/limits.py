"""How much of an image may be decoded at once, where its pixels are stored as one piece."""

import math
from pathlib import Path

from feedseg.runtime import memory
from feedseg.runtime.errors import BadImage

COPIES = 3  # of a piece at most: as decoded, as arranged, and the one before it


def check_piece(
    path: Path, num_bytes: int, what: str, remedy: str, limit: float = math.inf
) -> None:
    """Raises BadImage for a piece of an image that the memory of this machine does not hold.

    num_bytes: decoded; limit: bytes that are allowed on any machine; what: the piece.
    """
    limit = min(limit, (memory.memory() or math.inf) / COPIES)
    if num_bytes > limit:
        raise BadImage(
            f"{path}: {what}, {num_bytes / 2**30:.1f} GiB that have to be decoded at once, the "
            f"limit is {limit / 2**30:.1f} GiB here; {remedy}"
        )
