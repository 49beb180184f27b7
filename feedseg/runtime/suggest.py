"""The nearest known name to a misspelt one."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str = ".") -> str:
    """The hint `, did you mean 'NAME'?` with the nearest known name; without one, `otherwise`."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else otherwise
