"""Locks on open files; the system drops them when their holder ends, however it ends."""

import errno
import os
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, which has no locks of this kind
    fcntl = None


def take(file: int | IO, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed.

    Raises BlockingIOError if another process has it and we do not wait, OSError where the system
    or the file system knows no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(file, kind | (0 if wait else fcntl.LOCK_NB))
