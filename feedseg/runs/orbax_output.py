"""Orbax's own complaints about what cannot be written, which are raised here as well, unsaid."""

import logging
import sys
from collections.abc import Callable


def silence() -> None:
    """Keep its tracebacks from the terminal: those it logs, and those of its event loops."""
    logging.getLogger("absl").addFilter(_is_wanted)
    for name in ("unraisablehook", "excepthook"):
        hook = getattr(sys, name)
        if not isinstance(hook, _Hook):
            setattr(sys, name, _Hook(hook))


def _is_wanted(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


class _Hook:
    """As before, but for readers and writers that end after the loop that waited for them."""

    def __init__(self, before: Callable):
        self._before = before

    def __call__(self, *what) -> None:
        error = what[1] if len(what) == 3 else what[0].exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._before(*what)
