"""Run lengths of COCO: how long a mask stays 0, then 1, then 0, ... column after column.

Compressed they are text. Every sign holds 5 bits, lowest first, in its code minus 48; 32 says that
more follow, and bit 16 of a number's last sign its sign. From the fourth number on it is the
difference to the one two before it. Source: cocoapi, `common/maskApi.c`.
"""

import numpy as np

from feedseg.runtime.errors import one_line


def parse(counts: str | list, height: int, width: int) -> np.ndarray:
    """The run lengths of a mask of this size. Raises ValueError where they are damaged."""
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("the run lengths are no whole numbers from 0 on")
    if sum(runs) != height * width:
        raise ValueError(f"the run lengths cover {one_line(sum(runs))} of {height} x {width} px")
    return np.array(runs, np.int64)


def decode(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask [height, width] bool."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    runs, number, shift = [], 0, 0
    for sign in text:
        code = ord(sign) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{sign!r} is no sign of compressed run lengths")
        number |= (code & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("a run length has more than 60 bits")
        if not code & 32:
            number -= (1 << shift) if code & 16 else 0
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    if shift:
        raise ValueError("the compressed run lengths end within a number")
    return runs
