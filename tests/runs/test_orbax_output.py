"""What Orbax says beside the errors that it raises."""

import logging
import sys
from types import SimpleNamespace

import pytest

from feedseg.runs import orbax_output


@pytest.fixture
def said(monkeypatch) -> list:
    """What the hooks that were there before get."""
    heard = []
    for name in ("unraisablehook", "excepthook"):
        monkeypatch.setattr(sys, name, lambda *what: heard.append(what))
    orbax_output.silence()
    orbax_output.silence()  # once is enough
    return heard


@pytest.mark.parametrize(
    ("error", "passed_on"),
    [
        (RuntimeError("Event loop is closed"), 0),
        (RuntimeError("another"), 1),
        (ValueError("Event loop is closed"), 1),
    ],
)
def test_only_late_readers_and_writers_are_unheard(said, error, passed_on):
    sys.excepthook(type(error), error, None)
    sys.unraisablehook(SimpleNamespace(exc_type=type(error), exc_value=error))
    assert len(said) == 2 * passed_on


def test_tracebacks_that_it_logs_are_dropped():
    orbax_output.silence()
    (wanted,) = [f for f in logging.getLogger("absl").filters if f is orbax_output._is_wanted]

    def record(path: str, info) -> logging.LogRecord:
        return logging.LogRecord("absl", logging.ERROR, path, 1, "x", (), info)

    assert not wanted(record("/orbax/a.py", (ValueError, ValueError(), None)))
    assert wanted(record("/orbax/a.py", None)) and wanted(record("/b.py", (ValueError, None, None)))
