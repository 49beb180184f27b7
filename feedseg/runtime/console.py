"""Every line that a command prints: nothing in it moves the cursor or changes the terminal."""

import sys
from typing import TextIO

from feedseg.runtime import escape


def say(text: object = "") -> None:
    """Print lines on stdout."""
    _print(text, sys.stdout)


def warn(text: object) -> None:
    """Print lines on stderr."""
    _print(text, sys.stderr)


def shown(text: object, stream: TextIO) -> str:
    """Lines as they are printed; signs that the stream cannot encode stand as their codes."""
    coding = getattr(stream, "encoding", None) or "utf-8"
    return escape.visible_lines(text).encode(coding, "backslashreplace").decode(coding)


def _print(text: object, stream: TextIO) -> None:
    print(shown(text, stream), file=stream, flush=True)
