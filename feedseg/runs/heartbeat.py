"""Sign of life of a run: `heartbeat.json` in its directory, for whoever watches from outside.

It says how far the run is, where it runs and, at the end, how it ended. Nothing in a run reads it,
and a run never fails because of it: where it cannot be written it is left out.
"""

import contextlib
import time
from pathlib import Path

from feedseg.runtime import escape, file_lock, files, json_files, processes
from feedseg.runtime.errors import FeedsegError

NAME = "heartbeat.json"


class Heartbeat:
    """Writes the sign of life, at most every `every_s` seconds.

    path: the file, `heartbeat.json` in the run's directory. total_steps: of the whole run. As a
    context it writes at its beginning and its end (`end`). In a run of several processes only
    process 0 writes.
    """

    def __init__(self, path: Path, total_steps: int, every_s: float = 10):
        self._path, self._every_s = Path(path), every_s
        who = file_lock.this_process()
        del who["since"]
        self._content = {"step": 0, "total_steps": total_steps, **who}
        self._first: tuple[int, float] | None = None  # step and time of the first beat
        self._written = float("-inf")

    def beat(self, step: int, **values) -> None:
        """The run has made `step` steps. Never raises.

        values: more to tell, batch for one; each is kept until it is given again.
        """
        now = time.monotonic()
        self._first = self._first or (step, now)
        made, seconds = step - self._first[0], now - self._first[1]
        speed = {"steps_per_s": made / seconds} if made > 0 and seconds > 0 else {}
        self._content |= {"step": step, **speed, **values}
        if now - self._written >= self._every_s:
            self._write()

    def end(self, error: BaseException | None) -> None:
        """The run is over: adds `exit_code` and `error`, one line. Only the first call counts."""
        if "exit_code" in self._content:
            return
        expected = isinstance(error, FeedsegError)
        said = " ".join(map(str, error.args)) if expected else str(error or "")
        text = escape.visible(" ".join(said.split()))
        if error is not None and not expected:
            text = f"{type(error).__name__}: {text}"
        self._content |= {"exit_code": _exit_code(error), "error": text}
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if not processes.is_first():
            return
        with contextlib.suppress(FeedsegError, OSError, TypeError, ValueError):
            files.write_json_atomic(self._path, self._content | {"time": time.time()})

    def __enter__(self) -> "Heartbeat":
        self._write()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.end(error)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)


def read(path: Path) -> dict | None:
    """The sign of life in a file, None without one or if it cannot be read."""
    try:
        content = json_files.read(path)
        numbers = (content["time"], content["step"], content["total_steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if all(isinstance(number, int | float) for number in numbers) else None
