"""Locks on open files; the system drops them when their holder ends, however it ends.

A holder signs the file that it has locked, so that who comes second can say who is there.
"""

import errno
import json
import os
import socket
import time
from pathlib import Path
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


def is_taken(error: OSError) -> bool:
    """Whether `take` failed because another process has the lock, not for want of locks."""
    return error.errno in (errno.EWOULDBLOCK, errno.EACCES)


def is_open(path: Path, descriptor: int) -> bool:
    """Whether the file of that name is the open one."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def sign(descriptor: int, **more: str) -> str:
    """Write into the file who holds it, with `more`; returns the text. Raises OSError."""
    text = json.dumps(this_process() | more)
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)  # for other machines, too
    return text


def signature(descriptor: int) -> dict[str, str]:
    """What the holder has signed; empty where it has not yet."""
    try:
        who = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return who if isinstance(who, dict) else {}


def holder(descriptor: int) -> str:
    """Who holds the lock, in words."""
    try:
        who = signature(descriptor)
        job = f", job {who['job']}" if who["job"] else ""
        return f"{who['host']} pid {who['pid']}{job} since {who['since']}"
    except KeyError:
        return "another process"


def this_process() -> dict:
    """Host, pid, scheduler job (empty without one) and the time now."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{key}", "") for key in ("JOB_ID", "TASK_ID"))
    names = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID", "JOB_ID")
    single = next((os.environ[name] for name in names if os.environ.get(name)), "")
    job = f"{array}_{index}" if array else single
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": job, "since": since}
