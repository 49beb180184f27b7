"""Child processes under a time limit and a memory limit, disturbed at given moments."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.campaign import materials

DOCUMENTED = (2, 65, 69, 73, 75, 130, 143)
_MARK = "FEEDSEG_CAMPAIGN_OF"  # in the environment of all processes of this campaign
_QUIET = ("feedseg: note: ", "feedseg: warning: ")

Action = tuple[float, Callable[[int], None]]  # seconds after the start; what to do to that process


class Ended(NamedTuple):
    """A process that has ended. peak_mb: of its resident memory."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float
    limit: str  # "" or the limit that ended it

    def problem(self, signals: Sequence[int] = (), sweep: bool = False) -> str:
        """What is not as documented, or nothing. signals: what was sent to it."""
        lines = [line for line in self.err.splitlines() if line.startswith("feedseg: ")]
        errors = [line for line in lines if not line.startswith(_QUIET)]
        if self.limit:
            return f"{self.limit}: {self._end()}"
        if "Traceback (most recent call last)" in self.err + self.out:
            return f"traceback, exit code {self.code}: {self._end()}"
        fine = (0, *DOCUMENTED, *(-each for each in signals), *((1,) if sweep else ()))
        if self.code not in fine:
            return f"exit code {self.code}: {self._end()}"
        if len(errors) > 1:
            return f"{len(errors)} lines of error: {' | '.join(errors)[:300]}"
        if self.code in DOCUMENTED[:5] and not self.err.strip():
            return f"exit code {self.code} without a word"
        return ""

    def _end(self) -> str:
        text = (self.err.strip() or self.out.strip()).splitlines()
        return text[-1][:300] if text else "no output"


def python(
    *arguments: object,
    limit_s: float = 120,
    memory_mb: float = 2000,
    actions: Sequence[Action] = (),
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """`python ARGUMENTS` in the root of the repository; `actions` in the order of their times."""
    return together([arguments], limit_s, memory_mb, actions, prepare)[0]


def together(
    commands: Sequence[Sequence[object]],
    limit_s: float = 120,
    memory_mb: float = 2000,
    actions: Sequence[Action] = (),
    prepare: Callable[[], None] | None = None,
) -> list[Ended]:
    """Several at once; the limits hold for each, the actions are done to the first."""
    with contextlib.ExitStack() as stack:
        children = [_Child(each, prepare, stack) for each in commands]
        waiting = list(actions)
        while any(child.code is None for child in children):
            if waiting and time.monotonic() - children[0].started >= waiting[0][0]:
                action = waiting.pop(0)[1]
                if children[0].code is None:
                    action(children[0].process.pid)
            for child in children:
                child.look(limit_s, memory_mb)
            time.sleep(0.005)
        return [child.ended() for child in children]


class _Child:
    def __init__(self, arguments, prepare, stack: contextlib.ExitStack):
        self._texts = [stack.enter_context(tempfile.TemporaryFile()) for _ in "oe"]  # noqa: SIM115
        self.started, self._looked = time.monotonic(), 0.0
        self.process = subprocess.Popen(
            [sys.executable, *map(os.fspath, map(_plain, arguments))],
            cwd=materials.ROOT,
            env={**materials.environment(), _MARK: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=self._texts[0],
            stderr=self._texts[1],
            start_new_session=True,
            preexec_fn=prepare,
        )
        self.code: int | None = None
        self._limit, self._peak_mb, self._seconds = "", 0.0, 0.0

    def look(self, limit_s: float, memory_mb: float) -> None:
        """Whether it has ended; over a limit it is ended."""
        now = time.monotonic()
        if self.code is not None:
            return
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid:
            self.code = self.process.returncode = os.waitstatus_to_exitcode(status)
            self._peak_mb = max(self._peak_mb, usage.ru_maxrss / 1024)
            self._seconds = now - self.started
        elif now - self._looked > 0.05 and not self._limit:
            self._looked = now
            self._peak_mb = max(self._peak_mb, peak_mb(self.process.pid))
            if now - self.started > limit_s:
                self._limit = f"not ended after {limit_s:.0f} s"
            elif self._peak_mb > memory_mb:
                self._limit = f"{self._peak_mb:.0f} MB of memory, more than {memory_mb:.0f}"
            if self._limit:
                kill_tree(self.process.pid)

    def ended(self) -> Ended:
        texts = []
        for stream in self._texts:
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
        return Ended(self.code, *texts, self._seconds, self._peak_mb, self._limit)


def _plain(argument: object) -> object:
    return argument if isinstance(argument, str | os.PathLike) else str(argument)


def peak_mb(pid: int) -> float:
    """Most resident memory of a process so far; 0 where it cannot be seen."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def sender(number: int) -> Callable[[int], None]:
    """Sends a signal to a process alone."""

    def send(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    return send


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all that it started, in whatever sessions they are."""
    below = list(_descendants(pid))
    for each in (pid, *below):
        sender(signal.SIGKILL)(each)


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from _descendants(child)


def end_orphans() -> None:
    """Ends what commands of this campaign have left running; it waits until they are gone."""
    mark = f"{_MARK}={os.getpid()}".encode()
    for _ in range(500):
        left = list(_marked(mark))
        if not left:
            return
        for pid in left:
            sender(signal.SIGKILL)(pid)
        time.sleep(0.02)


def _marked(mark: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
