"""The command: runs the pieces one after the other within the minutes there are."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.recorder import MOST_TEXT
from feedseg.runtime.files import write_json_atomic

_GRACE_S = 5.0  # beyond a piece's limit until its process is ended
_LEAST_S = 10.0  # that a piece is begun with
_QUICK = ("--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true")
_TAIL = 4000  # characters of a piece's messages that an error is looked for in


class Piece(NamedTuple):
    """What is measured by one process. share: of all minutes, at most; 1: all that are left."""

    name: str
    share: float


PIECES = (
    Piece("facts", 0.06),
    Piece("equal", 0.15),
    Piece("steps", 0.3),
    Piece("attention", 0.06),
    Piece("models", 0.12),
    Piece("tables", 1.0),
)
NAMES = [piece.name for piece in PIECES]


def arguments() -> argparse.Namespace:
    from benchmarks import gpu

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, one a piece")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all pieces together (9)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--data", type=Path, help="folder with the data sets ($FEEDSEG_DATA)")
    parser.add_argument("--dry", action="store_true", help="toy size, on any machine")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes: above 0")
    return options


def main() -> int:
    options = arguments()
    environment = _environment(options)
    if not (options.dry or _has_gpu(environment)):
        sys.exit("benchmarks.gpu: JAX sees no GPU here; --dry takes every piece at toy size")
    options.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * options.minutes
    for piece in PIECES:
        if piece.name not in options.only:
            print(f"{piece.name}: left out: not among --only", flush=True)
            continue
        left = ends - time.monotonic() - _GRACE_S
        seconds = min(left, 60 * options.minutes * piece.share)
        if seconds < min(_LEAST_S, 60 * options.minutes * piece.share):
            print(f"{piece.name}: left out: {max(0, left):.0f} s are left", flush=True)
            continue
        _run(piece, seconds, options, environment)
    return 0


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Of the pieces: the CPU is there beside the GPU, and memory is taken as it is needed."""
    environment = {
        **os.environ,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if options.dry:  # nothing is timed: compile quickly
        environment["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_QUICK)).strip()
    if options.data:
        environment["FEEDSEG_DATA"] = str(options.data.resolve())
    return environment


def _has_gpu(environment: dict[str, str]) -> bool:
    """Whether JAX computes on a GPU, asked in a process that leaves it free again."""
    code = "import jax, sys; sys.exit(jax.default_backend() != 'gpu')"
    return subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def _run(piece: Piece, seconds: float, options: argparse.Namespace, environment: dict) -> None:
    """One piece in a process of its own, whatever becomes of it."""
    file = options.out / f"{piece.name}.json"
    file.unlink(missing_ok=True)
    print(f"{piece.name}: up to {seconds:.0f} s", flush=True)
    command = [sys.executable, "-m", "benchmarks.gpu.child", piece.name, str(file), str(seconds)]
    begun = time.monotonic()
    process = subprocess.Popen(
        [*command, *["--dry"] * options.dry],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # with all that it has started
    )
    try:
        messages = process.communicate(timeout=seconds + _GRACE_S)[1]
        error = f"exit code {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        _end(process)
        messages, error = "", f"ended after {seconds:.0f} s during {_running(file)!r}"
    if error:
        last = messages.strip()[-_TAIL:].splitlines()
        error = ": ".join([error, *last[-1:]])[:MOST_TEXT]
        print("\n".join(last[-20:]), f"{piece.name}: {error}", sep="\n", flush=True)
        _keep_error(file, piece.name, error)
    print(f"{piece.name}: {time.monotonic() - begun:.0f} s", flush=True)


def _end(process: subprocess.Popen) -> None:
    import signal

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=_GRACE_S)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def _running(file: Path) -> str:
    """The case that a piece was at."""
    try:
        return json.loads(file.read_text("utf-8")).get("running", "")
    except (OSError, ValueError):
        return ""


def _keep_error(file: Path, name: str, error: str) -> None:
    """Write into a piece's file why it was not finished."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        content = {"piece": name, "complete": False, "facts": {}, "cases": [], "left_out": []}
    write_json_atomic(file, content | {"error": error})


if __name__ == "__main__":
    sys.exit(main())
