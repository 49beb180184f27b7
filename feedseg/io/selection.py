"""Which of the series, slices and channels of a file are read, by number from 1 or by name."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from feedseg.io import reading
from feedseg.runtime.errors import BadImage, UserError

PageAxes = tuple[tuple[str, int], ...]  # name, t or z, and length of the axes of the pages
_LISTED = 12  # names in a message


def place(path: object, names: Sequence[str], wanted: str) -> int:
    """Index of the series `wanted`, a number from 1 or a name, upper and lower case alike.

    Raises BadImage, listing the series, where there is none of it, or several of the name.
    """
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    for known in (list(names), [name.lower() for name in names]):
        name = wanted if known == list(names) else wanted.lower()
        if known.count(name) == 1:
            return known.index(name)
    raise BadImage(f"{path}: no series {wanted!r}; it holds {listing(names)}")


def several(path: object, names: Sequence[str], kinds: Sequence[str] = ()) -> BadImage:
    """The error for a file of which one series has to be chosen."""
    return BadImage(
        f"{path}: holds {len(names)} images: {listing(names, kinds)}; choose one with "
        "--series NUMBER or NAME (in training --config.data.series), or save each as its own file"
    )


def listing(names: Sequence[str], kinds: Sequence[str] = ()) -> str:
    """`1 "liver" (64x64 uint8), 2 "lung" (32x32 uint8)`; kinds: what is in parentheses."""
    parts = [f'{number} "{name}"' if name else f"{number}" for number, name in enumerate(names, 1)]
    if kinds:
        parts = [f"{part} ({kind})" for part, kind in zip(parts, kinds, strict=True)]
    more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    return ", ".join(parts[:_LISTED]) + more


def channels(
    path: object, count: int, chosen: Sequence[int | str], names: Callable[[], Sequence[str]]
) -> list[int]:
    """Indices of the chosen ones of `count` channels; names: of the file's, as far as it has any.

    Raises UserError for those that it does not have.
    """
    numbers = [each if isinstance(each, int) else _named(path, each, names()) for each in chosen]
    if max(numbers) > count or min(numbers) < 1:
        asked = ", ".join(map(str, chosen))
        raise UserError(f"{path}: channel(s) {asked} asked for, it has {count}, counted from 1")
    return [number - 1 for number in numbers]


def _named(path: object, name: str, names: Sequence[str]) -> int:
    found = [i for i, known in enumerate(names, 1) if known.lower() == name.lower()]
    if len(found) == 1:
        return found[0]
    if not any(names):
        raise UserError(f"{path}: channel {name!r} asked for, it names none; give their numbers")
    raise UserError(
        f"{path}: {len(found) or 'no'} channels called {name!r}; it has {listing(names)}"
    )


def pages(path: object, axes: PageAxes, z: str) -> tuple[np.ndarray, PageAxes]:
    """Pages that make up each page of the result, [P, n], and the axes of the result.

    The result is the maximum of n pages: one, or of `max` all slices. axes: of the file's pages.
    Raises UserError for slices that the file does not have.
    """
    sizes = dict(axes)
    numbers = np.arange(math.prod(sizes.values())).reshape([*sizes.values()])
    depth = sizes.get("z", 1)
    first, last = (1, depth) if z == "max" else reading.slices(z)
    if last > depth:
        raise UserError(f"{path}: slice(s) {z} asked for, it has {depth}, counted from 1")
    if "z" not in sizes:
        return numbers.reshape(-1, 1), axes
    at = list(sizes).index("z")
    chosen = np.moveaxis(numbers, at, -1)[..., first - 1 : last]
    if z == "max":
        return chosen.reshape(-1, last), tuple(axis for axis in axes if axis[0] != "z")
    left = tuple((name, last - first + 1 if name == "z" else n) for name, n in axes)
    kept = tuple(axis for axis in left if axis != ("z", 1))
    return np.moveaxis(chosen, -1, at).reshape(-1, 1), kept
