"""A child process that handles many tries per start: it reads files and runs commands inside.

`ask(call, **arguments)` sends one call to it and gives an `Answer`. It is started when needed, and
anew after a crash, a time limit or a memory limit.
"""

import contextlib
import hashlib
import io
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_SPACE = 12 << 30  # bytes of addresses, of which JAX takes some without using them
_MOST_CALLS = 300


class Answer(NamedTuple):
    """value: of the call; refused: the one line of a FeedsegError; problem: what is wrong."""

    value: object = None
    refused: str = ""
    problem: str = ""


# In the campaign ----------------------------------------------------------------------------------


class _Worker:
    def __init__(self):
        from tests.campaign import materials

        self.calls = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.worker"],
            cwd=materials.ROOT,
            env=materials.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def ask(self, question: dict, limit_s: float, memory_mb: float) -> Answer:
        self.calls += 1
        with contextlib.suppress(OSError):  # peaks count anew from here
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        before = self._peak_mb()
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return Answer(problem="the worker is dead")
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(limit_s):
                self.kill()
                return Answer(problem=f"not ended after {limit_s:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            return Answer(problem=f"the process died with {code}: {self._last_words()}")
        more = self._peak_mb() - before
        if more > memory_mb:
            return Answer(problem=f"{more:.0f} MB of memory, more than {memory_mb:.0f}")
        return Answer(**json.loads(line))

    def _peak_mb(self) -> float:
        from tests.campaign.process import peak_mb

        return peak_mb(self.process.pid)

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()[-300:]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self._errors.close()


_current: _Worker | None = None


def ask(call: str, *, limit_s: float = 60, memory_mb: float = 600, **arguments) -> Answer:
    """One call of `CALLS`. memory_mb: how much more than before it may take at its peak."""
    global _current
    if _current is None:
        _current = _Worker()
        _current.ask({"call": "nothing", "arguments": {}}, 120, 2000)
    answer = _current.ask({"call": call, "arguments": arguments}, limit_s, memory_mb)
    if answer.problem and _current.process.poll() is not None:
        stop()
    return answer


def stop() -> None:
    global _current
    if _current is not None:
        _current.kill()
        _current = None


def stop_if_tired() -> None:
    if _current is not None and _current.calls > _MOST_CALLS:
        stop()


# In the child -------------------------------------------------------------------------------------


def _digest(array) -> str:
    kind = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(kind + array.tobytes()).hexdigest()


def _answered(read: Callable[[], str]) -> str:
    from feedseg.runtime.errors import FeedsegError

    try:
        return read()
    except FeedsegError as error:
        if "\n" in str(error):
            raise ValueError(f"an error of several lines: {error}") from error
        return f"refused: {error}"


def array(path: str) -> list[str]:
    """Digests of an image read twice as a whole and once by rows; or why they were refused."""
    import numpy as np

    from feedseg.io import images, source

    def by_rows() -> str:
        with source.open_source(Path(path)) as image:
            step = max(1, image.height // 3)
            pages = [
                np.concatenate(
                    [
                        image.rows(page, start, min(start + step, image.height))
                        for start in range(0, image.height, step)
                    ]
                )
                for page in range(image.count)
            ]
            return _digest(np.stack(pages))

    def whole() -> str:
        return _digest(images.read_array(Path(path)))

    return [_answered(read) for read in (whole, whole, by_rows)]


def label(path: str) -> list[str]:
    """Digests of a label image read twice."""
    from feedseg.io import images

    return [_answered(lambda: _digest(images.read_label(Path(path)))) for _ in range(2)]


def data_set(path: str) -> list[str]:
    """Digests of all sections of a folder of images and labels, loaded twice."""
    from configs import common
    from feedseg.datasets import folder

    options = common.base().data
    options.name = "folder"

    def load() -> str:
        data = folder.load(Path(path), options)
        found = [(s.name, _digest(s.image), _digest(s.label)) for s in data.sections]
        return hashlib.sha256(repr((found, data.class_names)).encode()).hexdigest()

    return [_answered(load) for _ in range(2)]


def model(path: str) -> str:
    """Digest of the probabilities that a model file gives of one image."""
    import numpy as np

    import feedseg

    loaded = feedseg.load(path)
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    return _digest(loaded.predict(image).probabilities)


def plan(path: str) -> str:
    """The tasks of a stored sweep."""
    from feedseg.experiments import trials

    return repr(trials.read_plan(Path(path)))


def command(arguments: list[str]) -> dict:
    """`feedseg ARGUMENTS`: code, out, err."""
    from feedseg import cli
    from feedseg.runtime.errors import guarded

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = guarded(cli.run, arguments)
        except SystemExit as end:  # of argparse
            code = end.code
    return {"code": code, "out": out.getvalue()[-4000:], "err": err.getvalue()[-4000:]}


def nothing() -> None:
    """The start: what all others import."""
    from feedseg import cli  # noqa: F401
    from feedseg.io import source  # noqa: F401


CALLS = {each.__name__: each for each in (array, label, data_set, model, plan, command, nothing)}


def _serve() -> None:
    from feedseg.runtime.errors import FeedsegError

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"value": CALLS[question["call"]](**question["arguments"])}
        except FeedsegError as error:
            lines = str(error).count("\n")
            answer = {"problem": f"an error of several lines: {error}"} if lines else {}
            answer["refused"] = str(error) or "no reason given"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            answer = {"problem": f"traceback: {type(error).__name__}: {error!s:.300} ({where})"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve()
