"""Errors that end a command, each with the exit code a shell or a launcher sees.

0 done; 2 the user's mistake; 65 training diverged or its data are not usable;
69 what it writes is in use; 73 a result could not be saved; 75 stopped and saved, run again.
Anything else is a bug and keeps its traceback.
"""

import errno
import os
import sys
import threading
from typing import NoReturn

from feedseg.runtime import console, escape

INTERRUPTED = threading.Event()  # set by Ctrl-C


class FeedsegError(Exception):
    """An expected failure: a line that names the file or key and the remedy, then perhaps hints."""

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(escape.visible, self.args))


class UserError(FeedsegError):
    """Something in the command, the configuration or the input files has to be fixed."""

    exit_code = 2


class BadImage(UserError):
    """A file is not a readable image of the expected kind."""


class Diverged(FeedsegError):
    """The loss became NaN or infinite."""

    exit_code = 65


class InUse(FeedsegError):
    """Another process holds the run directory, the folder of results or the file."""

    exit_code = 69


class SaveFailed(FeedsegError):
    """The last state or the result could not be written."""

    exit_code = 73


class Stopped(FeedsegError):
    """A signal asked the run to end; its state is saved and the same command continues it."""

    exit_code = 75


def leave(code: int) -> NoReturn:
    """End the process; at once where files could not be written.

    Threads of libraries may wait for ever for files that are gone, or complain about them.
    """
    if code == SaveFailed.exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def one_line(text: object) -> str:
    """The text of an exception or a log record on one line of at most 160 characters."""
    line = " ".join(str(text).split()) or type(text).__name__
    return line if len(line) <= 160 else line[:157] + "..."


def guarded(action, *args) -> int:
    """Exit code of an action; an expected failure becomes a line on stderr, no traceback."""
    try:
        code = action(*args)
        sys.stdout.flush()
        return code
    except FeedsegError as error:
        console.warn(f"feedseg: {error}")
        return error.exit_code
    except BrokenPipeError:  # `feedseg ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            console.warn(f"feedseg: {one_line(error.filename)}: the name is too long; shorten it")
            return UserError.exit_code
        if not (isinstance(error, KeyboardInterrupt) or INTERRUPTED.is_set()):
            raise
        console.warn("feedseg: interrupted")
        return 130
