"""Remarks of a command on what it decided by itself: one line on stderr, the first of its kind.

A folder of a thousand files of one kind gets one line, which names the first of them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from feedseg.runtime import console, escape

_lock = threading.Lock()
_said: set[str] = set()
_listeners: list[list[str]] = []


def note(kind: str, text: str) -> None:
    """Say `text` unless something of this kind was said before."""
    with _lock:
        if kind in _said:
            return
        _said.add(kind)
        text = escape.visible(text)
        if _listeners:
            _listeners[-1].append(text)
            return
    console.warn(f"feedseg: note: {text}")


@contextmanager
def collected() -> Iterator[list[str]]:
    """Remarks made inside, in order, instead of lines on stderr."""
    with fresh():
        texts: list[str] = []
        _listeners.append(texts)
        try:
            yield texts
        finally:
            _listeners.remove(texts)


@contextmanager
def fresh() -> Iterator[None]:
    """Inside every kind is said anew: of a command, or a call from Python."""
    global _said
    before, _said = _said, set()
    try:
        yield
    finally:
        _said = before
