"""One process at a time in a run directory: a lock on `.lock`, held for life.

The kernel drops the lock when its holder ends, however it ends, so there is nothing to clean up
after a kill. In a run of several processes only process 0 takes the lock.
"""

import contextlib
import errno
import logging
import os
import socket
import time
from pathlib import Path

from feedseg.runtime import file_lock, processes
from feedseg.runtime.errors import InUse, SaveFailed, UserError

_log = logging.getLogger(__name__)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class WorkdirLock:
    """The lock of a run directory; taken when made, given back by `release` or by the end.

    Raises InUse naming host, process and job of the holder, UserError if the folder cannot
    be made or written or is not shared by all processes, SaveFailed if its disk is full. Where the
    file system knows no locks it warns and goes on without one.
    """

    def __init__(self, workdir: Path):
        self.path = Path(workdir) / ".lock"
        self._descriptor = None
        signature = processes.from_first(self._take, workdir)
        if signature and not processes.is_first():
            _see(self.path, signature)

    def _take(self, workdir: Path) -> str:
        """Take the lock; returns what is written into its file, empty if nothing can be."""
        self._descriptor = _open(self.path)
        try:
            file_lock.take(self._descriptor)
        except OSError as error:
            if file_lock.is_taken(error):
                holder = file_lock.holder(self._descriptor)
                self.release()
                raise InUse(
                    f"{workdir} is in use by {holder}; wait for it, stop it, or choose another "
                    "--workdir"
                ) from None
            _log.warning(
                "%s: this file system has no locks (%s); make sure that only one run uses the "
                "folder",
                workdir,
                error.strerror,
            )
        return self._sign()

    def _sign(self) -> str:
        """Say in the file who holds it; the lock is the kernel's, the text is for people."""
        try:
            return file_lock.sign(self._descriptor)
        except OSError as error:
            _log.warning("%s: cannot be written: %s", self.path, error.strerror)
            return ""

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "WorkdirLock":
        return self

    def __exit__(self, *exception) -> None:
        self.release()


def _open(path: Path) -> int:
    """Descriptor of the lock file, made with its folder where needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        folder, reason = path.parent, error.strerror
        if error.errno in _NO_ROOM:
            raise SaveFailed(
                f"cannot write in {folder}: {reason}; free space on that disk"
            ) from None
        raise UserError(
            f"cannot write in {folder}: {reason}; choose another --workdir or fix the permissions"
        ) from None


def _see(path: Path, signature: str) -> None:
    """Raises UserError unless the lock that process 0 has signed shows up here within 10 s."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            if path.read_text() == signature:
                return
        time.sleep(0.1)
    raise UserError(
        f"process {processes.index()} on {socket.gethostname()} does not see {path.parent} as "
        "process 0 does: choose a --workdir on a file system that all machines share"
    )
