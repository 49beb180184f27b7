"""Files that are either the old one or the new one, never half of each.

New content goes to a temporary file in the same folder, is flushed to the disk and takes the
place of the old file in one rename. Of several processes only process 0 writes.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from feedseg.runtime import file_lock, json_files, processes
from feedseg.runtime.errors import SaveFailed, UserError, one_line


def to_json(obj, indent: int | None = None) -> str:
    """Strict JSON text: numpy values as numbers and lists, NaN and infinity as null."""
    return json.dumps(_plain(obj), indent=indent, allow_nan=False)


def _plain(value):
    """`value` in the types that JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return _plain(value.tolist())
    return value


LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, on most file systems
_ADDED = len("..4194304-01234567.part")  # by `temporary`


def require_room(path: Path, called: Path | None = None) -> None:
    """Raises UserError where a file that is to be written has too long a name or path.

    called: the file that it is named after, if any.
    """
    name, whole = len(os.fsencode(path.name)) + _ADDED, len(os.fsencode(path)) + _ADDED
    over = max(name - LONGEST_NAME, whole - LONGEST_PATH)
    if over > 0:
        made = f"makes {one_line(path.name)}, whose name" if called else "the name"
        raise UserError(
            f"{called or path}: {made} is too long by {over} bytes; choose a shorter one"
        )


def is_file(path: Path) -> bool:
    """Whether there is a file of this name, which may also be one that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def require_folder(path: Path) -> None:
    """Raises UserError where a folder is not there and cannot be made, or not be written to."""
    path = Path(path)
    try:
        whole = path.absolute()
        there = next(each for each in (whole, *whole.parents) if each.exists())
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{path}: cannot be made ({error.strerror}); choose another") from None
    if not there.is_dir():
        made = "is" if there == whole else f"cannot be made: {there} is"
        raise UserError(f"{path}: {made} a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{path}: {there} cannot be written to; choose another folder")


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """An OSError inside becomes SaveFailed that names the path, the reason and what to do."""
    try:
        yield
    except OSError as error:
        raise SaveFailed(
            f"{path}: cannot be written ({error.strerror or one_line(error)}); free space or fix "
            "the permissions, then run the same command again"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None], make_folder: bool = True) -> None:
    """`write(temporary)` beside `path`, then a rename onto it.

    What killed processes left beside it is removed (`temporary`).
    Raises SaveFailed naming the file if it cannot be written; nothing is left behind then.
    """
    path = Path(path)
    with saving(path), temporary(path, make_folder=make_folder) as own:
        write(own)
        with own.open("rb+") as stream:
            os.fsync(stream.fileno())
        own.replace(path)
    _sync_folder(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file `path` by `text` (UTF-8). One writer at a time per path.

    Raises SaveFailed naming the path if the disk is full or the folder cannot be written.
    """
    if processes.is_first():
        write_atomically(
            path,
            lambda own: own.write_text(text, encoding="utf-8", newline="\n"),
            make_folder=False,  # of a run that somebody deletes nothing is made anew
        )


@contextlib.contextmanager
def temporary(path: Path, suffix: str = ".part", make_folder: bool = True) -> Iterator[Path]:
    """An empty hidden file beside `path`, for what is to become it or is needed for it.

    It is removed at the end unless it was renamed, and it is locked as long as it is in use: so
    those of killed processes beside the same `path` are known by their free lock, and removed
    first. Where the system or the file system knows no locks they stay.
    Raises OSError if the folder cannot be made or the file not be written.
    """
    path = Path(path)
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{os.getpid()}-{_token()}{suffix}")
    form = _form(re.escape(path.name), re.escape(suffix))
    for name in filter(form.fullmatch, _hidden_at_first(path.parent.resolve())):
        if name != own.name:
            remove_if_free(path.with_name(name))
    descriptor = _hold(own)
    try:
        yield own
    finally:
        with contextlib.suppress(OSError):
            if descriptor is None or file_lock.is_open(own, descriptor):
                own.unlink()
        if descriptor is not None:
            os.close(descriptor)


def _form(name: str, suffix: str) -> re.Pattern:
    return re.compile(rf"\.{name}\.\d+(-[0-9a-f]+)?{suffix}")


def remove_leftovers(folder: Path) -> None:
    """Remove the `temporary` files of killed processes in a folder in which nothing is written."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        form = _form(".+", r"\.\w+")
        for name in [entry.name for entry in entries if form.fullmatch(entry.name)]:
            remove_if_free(Path(folder) / name)


@functools.lru_cache(maxsize=1)
def _token() -> str:
    """Of this process: on other machines and in containers others have its number."""
    return secrets.token_hex(4)


@functools.lru_cache(maxsize=8)
def _hidden_at_first(folder: Path) -> tuple[str, ...]:
    """Names of the hidden files in a folder when this process first wrote there.

    Kept, because to list a folder of many images for each of them takes long.
    """
    with os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if entry.name.startswith("."))


def _hold(path: Path) -> int | None:
    """The descriptor of an empty file of that name, which is locked; None where there are no locks.

    Then the file is made too, and closed: Windows renames no open file.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            file_lock.take(descriptor, wait=True)
        except OSError:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
            return None
        if file_lock.is_open(path, descriptor):
            os.ftruncate(descriptor, 0)
            return descriptor
        os.close(descriptor)  # before it was locked, it was taken for a leftover


def remove_if_free(path: Path) -> None:
    """Remove a file that no process has locked."""
    with contextlib.suppress(OSError):  # locked, gone, or somebody else's
        descriptor = os.open(path, os.O_RDWR)
        try:
            file_lock.take(descriptor)
            if file_lock.is_open(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def write_json_atomic(path: Path, obj) -> None:
    """Replace the file `path` by `obj` as indented JSON (see `to_json`).

    Raises SaveFailed naming the path if the disk is full or the folder cannot be written.
    """
    write_text_atomic(path, to_json(obj, indent=1) + "\n")


def write_sealed(path: Path, obj: dict) -> None:
    """`write_json_atomic` with `sha256`, the digest of all other values; see `seal`."""
    write_json_atomic(path, {**obj, SEAL: seal(obj)})


SEAL = "sha256"


def seal(obj: dict) -> str:
    """SHA-256 of an object as JSON with sorted keys, without its own seal."""
    plain = _plain({key: value for key, value in obj.items() if key != SEAL})
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def append_line(path: Path, text: str) -> None:
    """Add lines to a text file, flushed to the disk; a torn last line is ended first.

    Raises SaveFailed naming the path if it cannot be written.
    """
    with saving(path), Path(path).open("ab+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            text = text if stream.read(1) == b"\n" else f"\n{text}"
        stream.write(f"{text}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())


def truncate_jsonl(path: Path, keep: Callable[[dict], bool]) -> int:
    """Keep the rows of a JSON-lines file for which `keep(row)` holds; returns their number.

    The kept rows stay byte for byte. A torn last line, left by a run that died while writing,
    is dropped, and so is every line that is no JSON object. A missing file has no rows.
    Of several processes all must call it. Raises SaveFailed naming the path if it cannot be
    rewritten.
    """
    return processes.from_first(_truncate, Path(path), keep)


def _truncate(path: Path, keep: Callable[[dict], bool]) -> int:
    if not path.exists():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (row := json_row(line)) is not None and keep(row)]
    if len(kept) != len(lines):
        write_text_atomic(path, b"".join(kept).decode())
    return len(kept)


def json_row(line: bytes) -> dict | None:
    """The JSON object of a complete line, or None."""
    try:
        return json_files.parse(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power loss, where the file system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
