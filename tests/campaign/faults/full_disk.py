"""A disk that is too small, or files that may not grow, for whatever writes; then enough room."""

import contextlib
import resource
import signal
import subprocess

from tests.campaign import tasks
from tests.campaign.outcome import judged, skipped

COMMANDS = (tasks.TRAIN, tasks.PREDICT, tasks.PREDICT_ZARR, tasks.REPORT, *tasks.EXPORTS)


def attempt(rng, folder):
    task = rng.choice(COMMANDS)
    if rng.random() < 0.4:
        return _limited(rng, task, folder)
    try:
        with _disk(folder / "disk") as resize:
            return _full(rng, task, folder / "disk", resize)
    except PermissionError:
        return _limited(rng, task, folder)


def _full(rng, task, disk, resize):
    kilobytes = int(_bytes(task) / 1024 * rng.uniform(0.02, 1.2)) + 8
    resize(f"{kilobytes}k")
    out = task.output(disk)
    ended = task.run(out)
    did = f"{task.name}{task.suffix} on a disk of {kilobytes} kB, exit code {ended.code}"
    problem = ended.problem() or _wrong_code(ended.code) or task.problem(out, ended.code == 0)
    resize("200m")
    return judged(problem or task.finish(out), did)


def _limited(rng, task, folder):
    if not hasattr(resource, "RLIMIT_FSIZE"):
        return skipped("neither a small disk nor a limit of files can be had")
    most = rng.randrange(1000, 60_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    out = task.output(folder)
    ended = task.run(out, prepare=limit)
    did = f"{task.name}{task.suffix} with files of at most {most} bytes, exit code {ended.code}"
    problem = ended.problem([signal.SIGXFSZ]) or _wrong_code(ended.code)
    return judged(problem or task.problem(out, ended.code == 0) or task.finish(out), did)


def _wrong_code(code: int) -> str:
    return "" if code in (0, 2, 73, -signal.SIGXFSZ) else "another exit code than 73"


def _bytes(task) -> int:
    path = task.undisturbed()[0]
    return sum(p.stat().st_blocks * 512 + 512 for p in [path, *path.rglob("*")])


@contextlib.contextmanager
def _disk(where):
    """A file system in memory. Raises PermissionError where none may be mounted."""
    where.mkdir()

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(where)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise PermissionError from error

    mount("size=200m")
    try:
        yield lambda size: mount("remount", f"size={size}")
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)
