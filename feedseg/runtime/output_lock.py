"""One command at a time writes into a folder of results or a file; parts of one job share it.

The lock is a hidden file that is gone afterwards; a killed command leaves it, free for the next.
"""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from feedseg.runtime import file_lock
from feedseg.runtime.errors import InUse, SaveFailed
from feedseg.runtime.files import require_folder, saving
from feedseg.runtime.notes import note

_PATIENCE_S = 5.0  # for another part of the same job, which holds the lock alone while it signs
_POLL_S = 0.02
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def hold_folder(folder: Path, share: str = "") -> Iterator[None]:
    """Hold a folder of results, made where needed; one that stays empty is removed again.

    share: what the command makes there, as text. Commands of the same text hold the folder
    together; without one it is held alone.
    Raises InUse naming the holder, UserError if the folder cannot be made, SaveFailed if it cannot
    be written, or is deleted meanwhile.
    """
    with _held(Path(folder) / ".feedseg.lock", Path(folder), share):
        yield


@contextlib.contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """Hold a file that is to be written, there or not.

    Raises InUse naming the holder, UserError if its folder cannot be made, SaveFailed if it cannot
    be written.
    """
    path = Path(path)
    with _held(path.with_name(f".{path.name}.lock"), path, ""):
        yield


@contextlib.contextmanager
def _held(lock: Path, what: Path, share: str) -> Iterator[None]:
    text = hashlib.sha256(share.encode()).hexdigest() if share else ""
    require_folder(lock.parent)
    missing = [each for each in lock.parents if not each.exists()]
    try:
        with saving(what):
            descriptor = _take(lock, what, text)
        try:
            yield
        except OSError as error:
            if descriptor is None or file_lock.is_open(lock, descriptor):
                raise
            raise SaveFailed(
                f"{what}: was deleted or renamed while it was written to; run the command again"
            ) from error
        finally:
            if descriptor is not None:
                _give_back(lock, descriptor)
    finally:
        for each in missing:
            with contextlib.suppress(OSError):  # not empty
                each.rmdir()


def _take(lock: Path, what: Path, share: str) -> int | None:
    """The descriptor of the locked file, None where the file system knows no locks."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the last holder has removed the folder just now
            continue
        try:
            if _join(descriptor, share) and file_lock.is_open(lock, descriptor):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                lock.unlink()
            if error.errno in _NO_ROOM:
                raise
            if os.name != "nt":
                note("locks", f"{what}: this file system has no locks; run one command at a time")
            return None
        signed = file_lock.signature(descriptor)
        holder = file_lock.holder(descriptor)
        os.close(descriptor)
        if (signed and (signed.get("share") or None) != share) or time.monotonic() > until:
            raise InUse(f"{what} is in use by {holder}; wait for it, or choose another place")
        time.sleep(_POLL_S)


def _join(descriptor: int, share: str) -> bool:
    """Lock the file alone and sign it, or with others of the same `share`; whether it is ours.

    Raises OSError where there are no locks.
    """
    if _lock(descriptor):
        file_lock.sign(descriptor, share=share)
        return not share or _lock(descriptor, shared=True)  # not at once: another may be first
    signed = bool(share) and _lock(descriptor, shared=True)
    return signed and file_lock.signature(descriptor).get("share") == share


def _lock(descriptor: int, shared: bool = False) -> bool:
    try:
        file_lock.take(descriptor, shared=shared)
    except OSError as error:
        if file_lock.is_taken(error):
            return False
        raise
    return True


def _give_back(lock: Path, descriptor: int) -> None:
    """Close the file; the last of its holders removes it."""
    with contextlib.suppress(OSError):
        if _lock(descriptor) and file_lock.is_open(lock, descriptor):
            lock.unlink()
    os.close(descriptor)
