"""Large memory pages for arrays, where the system gives them to those who ask.

A training step on the CPU takes and returns hundreds of MiB; handed out in pages of 4 KiB that is
a sixth of its time. The C library (glibc 2.35 or newer) asks for large ones if its environment says
so when the program starts. So the command starts itself again, once, before anything is loaded;
GLIBC_TUNABLES=glibc.malloc.hugetlb=0 keeps it from that.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
_OFFER = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tunables(environ: Mapping[str, str]) -> str | None:
    """GLIBC_TUNABLES to start again with; None: set already, or not offered."""
    given = environ.get("GLIBC_TUNABLES", "")
    try:
        on_request = "[madvise]" in _OFFER.read_text()
    except OSError:
        return None
    if not on_request or _TUNABLE in given:
        return None
    return ":".join(filter(None, (given, f"{_TUNABLE}=1")))


def request() -> None:
    """Start this command again with large pages, if that is of use; else return."""
    if value := tunables(os.environ):
        command = [sys.executable, *sys.orig_argv[1:]]
        with contextlib.suppress(OSError):  # then it goes on as it was started
            os.execve(sys.executable, command, {**os.environ, "GLIBC_TUNABLES": value})
