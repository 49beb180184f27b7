"""Orbax's own complaints about what cannot be written, which are raised here as well, unsaid."""

import logging
import sys


def silence() -> None:
    """Keep its tracebacks from the terminal: those it logs, and those of its event loops."""
    logging.getLogger("absl").addFilter(_is_wanted)
    if sys.unraisablehook is not _hook:
        _shown.append(sys.unraisablehook)
        sys.unraisablehook = _hook


_shown: list = []  # the hooks before this one


def _is_wanted(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _hook(what) -> None:
    """As before, but for writers that end after the loop that waited for them has ended."""
    if not (what.exc_type is RuntimeError and str(what.exc_value) == "Event loop is closed"):
        _shown[-1](what)
