"""Which image an annotation belongs to: the one it states, or the one it is named after."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from feedseg.datasets.common import pairing
from feedseg.datasets.common.pairing import shorten
from feedseg.io import images
from feedseg.io.annotations import reading
from feedseg.io.annotations.shapes import Annotated, Shape
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.source import open_source
from feedseg.runtime.errors import UserError
from feedseg.runtime.names import one_form
from feedseg.runtime.notes import note

_MARK = re.compile(r"[-_ .]*(roi[-_ ]?set|rois?|annotations?)[-_ .]*", re.IGNORECASE)


class Drawn(NamedTuple):
    """An image with the shapes on it."""

    image: Path
    key: str  # path below the folder of images, without suffix
    shapes: tuple[Shape, ...]
    count: int  # pages
    height: int  # px
    width: int
    order: tuple[str, ...]  # of class names, where the files have one


class Found(NamedTuple):
    """What a folder holds."""

    drawn: list[Drawn]
    without: list[Path]  # images without an annotation


def find(root: Path, how: ReadOptions = AS_STATED) -> Found:
    """Images below a folder with the shapes drawn on them, in the order of their names.

    how: images are read. Raises UserError naming the file for annotations that are damaged or of no
    image, for two files of one image, and where the image has another size than they state.
    """
    folder = pairing.image_folder(root)
    known = pairing.files_below(folder)
    entries: dict[Path, list[Annotated]] = {}
    for path in pairing.files_below(root, reading.SUFFIXES):
        found = reading.read(path)
        if not found:
            note("unknown", f"{path}: holds no shapes that are known here, left out")
        for each in found:
            entries.setdefault(_image_of(each, folder, known), []).append(each)
    drawn = [_drawn(image, folder, entries[image], how) for image in sorted(entries)]
    _refuse_equal_keys(drawn)
    return Found(drawn, [image for image in known if image not in entries])


def _image_of(entry: Annotated, folder: Path, known: Sequence[Path]) -> Path:
    """The image that an entry states or is named after. Raises UserError where none or several."""
    wanted = _stated(entry, known) if entry.image else []
    wanted = wanted or ([] if _is_list(entry) else _named_after(entry.file, folder, known))
    if len(wanted) == 1:
        return wanted[0]
    named = f"image {entry.image!r}" if entry.image else "an image of the same name"
    if wanted:
        raise UserError(f"{entry.file}: {named} is one of {shorten(wanted)}; rename the others")
    raise UserError(f"{entry.file}: {named} is not below {folder}; add it, or remove the file")


def _is_list(entry: Annotated) -> bool:
    """Whether a file has the shapes of many images, as COCO."""
    return bool(entry.order)


def _stated(entry: Annotated, known: Sequence[Path]) -> list[Path]:
    """Images at the stated path, else of the end of it, else of its name."""
    stated = PurePosixPath(entry.image.replace("\\", "/"))
    exact = entry.file.parent / stated
    if exact in known:
        return [exact]
    parts = [part for part in stated.parts if part not in (".", "..", "/")]
    ends = [path for path in known if list(path.parts[-len(parts) :]) == parts]
    return ends or [path for path in known if path.name == stated.name]


def _named_after(file: Path, folder: Path, known: Sequence[Path]) -> list[Path]:
    """Images of the file's name, else of its folder's name; of a `RoiSet.zip` the only image."""
    plain = _MARK.sub("", file.stem)
    for key in dict.fromkeys(map(one_form, (file.stem, plain, file.parent.name))):
        fitting = [path for path in known if key in _names(path)]
        if fitting:
            return [path for path in fitting if path.parent == file.parent] or fitting
    return list(known) if len(known) == 1 and not plain else []


def _names(image: Path) -> set[str]:
    """What a file of annotations may be called: `a.tif`, `a`, and `a` of `a.ome.tif`."""
    return {one_form(name) for name in (image.name, image.stem, images.stem(image))}


def _drawn(image: Path, folder: Path, entries: list[Annotated], how: ReadOptions) -> Drawn:
    if len(entries) > 1 and not all(each.file.suffix.lower() == ".roi" for each in entries):
        raise UserError(
            f"{image}: has annotations twice, in {shorten(each.file for each in entries)}; "
            "keep one of them"
        )
    with open_source(image, how) as source:
        size = source.count, source.height, source.width
    for each in entries:
        if each.size and each.size != size[1:]:
            raise UserError(
                f"{each.file}: states {each.size[0]}x{each.size[1]} px (height x width) for "
                f"{image.name}, which has {size[1]}x{size[2]}; annotate the image as it is"
            )
    key = image.relative_to(folder).with_suffix("").as_posix()
    shapes = tuple(shape for each in entries for shape in each.shapes)
    order = tuple(name for each in entries for name in each.order)
    return Drawn(image, key, shapes, *size, order)


def _refuse_equal_keys(drawn: list[Drawn]) -> None:
    first: dict[str, Path] = {}
    for each in drawn:
        if first.setdefault(each.key, each.image) != each.image:
            raise UserError(
                f"{each.image}: has the name of {first[each.key].name}; rename one of them"
            )
