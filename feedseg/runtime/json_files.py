"""JSON from a file that anybody may have written: of limited size, depth and kind.

Everything that is wrong with it is a ValueError of one line; who reads names the file.
"""

import json
import os
from pathlib import Path

MOST_BYTES = 64 * 2**20
MOST_LEVELS = 64  # lists and objects inside each other; what walks through them recurses
_KINDS = {dict: "object", list: "list"}


def read(path: Path, kind: type | tuple[type, ...] = dict, most_bytes: int = MOST_BYTES):
    """The object (or list) in a file of UTF-8. Raises OSError, or ValueError as `parse`."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # a buffer of what is asked for is made
        return parse(file.read(min(size, most_bytes) + 1), kind, most_bytes)


def parse(data: bytes | str, kind: type | tuple[type, ...] = dict, most_bytes: int = MOST_BYTES):
    """The object (or list) in a JSON text.

    Raises ValueError if it is larger or deeper than allowed, no UTF-8, no JSON, or of another kind.
    """
    if len(data) > most_bytes:
        raise ValueError(f"more than {most_bytes:,} bytes")
    try:
        content = json.loads(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("no UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep") from None
    if not isinstance(content, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ValueError(f"no JSON {' or '.join(_KINDS[each] for each in kinds)}")
    _check_depth(content)
    return content


def _check_depth(content: dict | list) -> None:
    level = [content]
    for _ in range(MOST_LEVELS):
        level = [each for outer in level for each in _inner(outer) if isinstance(each, dict | list)]
        if not level:
            return
    raise ValueError(f"nested more than {MOST_LEVELS} levels deep")


def _inner(outer: dict | list):
    return outer.values() if isinstance(outer, dict) else outer
