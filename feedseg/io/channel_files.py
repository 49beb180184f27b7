"""Channels of an image in files of their own, told apart by the endings of their names.

Of `cell_0000.tif` and `cell_0001.tif`, with the endings _0000 and _0001, the first stands for both.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from feedseg.runtime.errors import BadImage

NNUNET = re.compile(r"_\d{4}$")  # the ending of its channels


def members(path: Path, endings: Sequence[str]) -> list[Path]:
    """The files of all channels of the image that `path`, the first of them, stands for.

    Raises BadImage where it does not end in the first ending or another file is missing.
    """
    path = Path(path)
    if not path.stem.endswith(endings[0]):
        raise BadImage(f"{path}: does not end in {endings[0]}, the first of the channel files")
    files = [_sibling(path, endings[0], ending) for ending in endings]
    for file in files:
        if not file.exists():
            raise BadImage(f"{file}: no such file, the channel {file.name} of {path.name}")
    return files


def firsts(paths: Iterable[Path], endings: Sequence[str]) -> list[Path]:
    """The paths without those that the first file of their image stands for."""
    paths = list(paths)
    there = set(paths)
    return [path for path in paths if not _first_of(path, endings) & there]


def stem(name: str, endings: Sequence[str]) -> str:
    """The name of an image: that of its first file without the ending."""
    return name.removesuffix(endings[0]) or name if endings else name


def _first_of(path: Path, endings: Sequence[str]) -> set[Path]:
    """What may be the first file of the image of which this one is a later channel."""
    return {_sibling(path, each, endings[0]) for each in endings[1:] if path.stem.endswith(each)}


def _sibling(path: Path, ending: str, other: str) -> Path:
    return path.with_name(f"{path.stem.removesuffix(ending)}{other}{path.suffix}")


def require_alike(files: Iterable[tuple[Path, tuple[int, ...], np.dtype]]) -> None:
    """Raises BadImage for channel files that differ in pages, size or type from the first."""
    (first, *kind), *others = files
    for path, *other in others:
        if other != kind:
            (size, dtype), (wanted, of) = other, kind
            raise BadImage(
                f"{path}: {'x'.join(map(str, size))} {dtype} (pages x height x width), the channel "
                f"{first.name} is {'x'.join(map(str, wanted))} {of}; both must agree"
            )
