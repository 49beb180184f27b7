"""Class masks from drawn shapes: which class a shape is of, and which pixels get it."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.tools.annotated_images import Drawn
from feedseg.io.annotations.shapes import Shape
from feedseg.io.limits import check_piece
from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

BACKGROUND, OBJECT = "background", "object"  # names of classes that nobody named
IGNORE = re.compile(r"_*(ignore|void)_*\*?", re.IGNORECASE)  # shapes of these are void
_BACKGROUND = re.compile(r"_*background_*", re.IGNORECASE)  # labelme writes _background_


class Mask(NamedTuple):
    """The labels of an image and what to say of them."""

    labels: np.ndarray  # [P, H, W] uint8
    clipped: list[str]  # shapes that reach beyond the image
    empty: list[str]  # shapes that fill no pixel
    covered: int  # pixels of a shape that one of another class covers


def class_names(drawn: Iterable[Drawn], given: Sequence[str], void: bool) -> tuple[str, ...]:
    """The classes in the order of their ids: those given, else those drawn.

    The drawn ones are sorted as their file sorts them (COCO: by id), else by name, with
    `background` before them; where unlabeled pixels are void only if somebody drew it.
    """
    if given:
        return tuple(given)
    drawn = list(drawn)
    order = list(dict.fromkeys(_plain(name) for each in drawn for name in each.order))
    used = {_own_name(shape) for each in drawn for shape in each.shapes}
    used = {name for name in used if not IGNORE.fullmatch(name)}
    names = [name for name in order if name in used] + sorted(used - set(order))
    first = [BACKGROUND] if not void or BACKGROUND in names else []
    return (*first, *(name for name in names if name != BACKGROUND))


def _own_name(shape: Shape) -> str:
    """The class that a shape names where no classes are given."""
    if shape.names:
        return _plain(shape.names[-1])
    return f"group {shape.group}" if shape.group else OBJECT


def _plain(name: str) -> str:
    return BACKGROUND if _BACKGROUND.fullmatch(name) else name


def class_id(shape: Shape, names: Sequence[str], given: bool) -> int:
    """The id of a shape's class, VOID for those to be ignored. Raises ValueError for unknown ones.

    given: whether the names are the user's choice. A shape without a name is of the class that
    its group numbers, else of the second where there are two.
    """
    if not given:
        own = _own_name(shape)
        return VOID if IGNORE.fullmatch(own) else names.index(own)
    for name in (*shape.names, *map(_plain, shape.names)):
        if name in names:
            return names.index(name)
    if shape.names and IGNORE.fullmatch(shape.names[-1]):
        return VOID
    if 0 < shape.group < len(names):
        return shape.group
    known = ", ".join(names)
    if shape.names:
        hint = did_you_mean(shape.names[-1], names)
        raise ValueError(f"class {shape.names[-1]!r} is none of {known}{hint}")
    if len(names) != 2:
        raise ValueError(f"has no class; name it one of {known}")
    return 1


def draw(drawn: Drawn, names: Sequence[str], given: bool, void: bool) -> Mask:
    """The labels of an image. Later shapes cover earlier ones; other pixels are class 0, or void.

    Shapes are clipped to the image. Raises UserError naming the file and the shape.
    """
    size = drawn.count, drawn.height, drawn.width
    check_piece(drawn.image, 2 * np.prod(size, dtype=object), "its label", "split the image")
    labels = np.full(size, VOID if void else 0, np.uint8)
    touched = np.zeros(size, bool)
    clipped, empty, covered = [], [], 0
    for shape in drawn.shapes:
        filled = False
        try:
            number, pages = class_id(shape, names, given), _pages(shape, drawn.count)
            for top, left, mask in shape.fill(drawn.height, drawn.width):
                box = np.s_[pages, top : top + mask.shape[0], left : left + mask.shape[1]]
                covered += int((touched[box] & mask & (labels[box] != number)).sum())
                labels[box][..., mask] = number
                touched[box] |= mask
                filled |= bool(mask.any())
        except ValueError as error:
            raise UserError(f"{shape.where}: {error}") from None
        clipped += [shape.where] if _beyond(shape, drawn.height, drawn.width) else []
        empty += [] if filled else [shape.where]
    return Mask(labels, clipped, empty, covered)


def _pages(shape: Shape, count: int) -> slice:
    """The pages that a shape is on: a single image has one, whatever the shape says."""
    if count == 1 or not shape.page:
        return slice(None)
    if shape.page > count:
        raise ValueError(f"on page {shape.page} of an image with {count}; is it of another image?")
    return slice(shape.page - 1, shape.page)


def _beyond(shape: Shape, height: int, width: int) -> bool:
    left, top, right, bottom = shape.extent()
    return left < 0 or top < 0 or right > width or bottom > height
