"""COCO: one JSON file with the outlines on many images, as polygons or run lengths."""

import functools
from pathlib import Path

from feedseg.io.annotations import rle
from feedseg.io.annotations.shapes import FARTHEST, Annotated, Raster, Shape, ring
from feedseg.runtime.allowed import Anything, Fields, Listed, Maybe, Number, Text, whole
from feedseg.runtime.errors import UserError

_MANY = 10**8
_ID = Number(-(2**63), 2**63, whole=True)
_SIDE = whole(1, FARTHEST)  # px
_IMAGE = Fields(
    {"id": _ID, "file_name": Text(4096, least=1)}, {"height": Maybe(_SIDE), "width": Maybe(_SIDE)}
)
_CATEGORY = Fields({"id": _ID, "name": Text(200, least=1)})
_ANNOTATION = Fields({"image_id": _ID, "category_id": _ID, "segmentation": Anything()})
_FILE = Fields(
    {
        "images": Listed(_IMAGE, 0, _MANY),
        "categories": Listed(_CATEGORY, 0, _MANY),
        "annotations": Listed(_ANNOTATION, 0, _MANY),
    }
)
_RUNS = Fields({"size": Listed(_SIDE, 2, 2), "counts": Anything()})


def recognizes(content: object) -> bool:
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read(path: Path, content: dict) -> list[Annotated]:
    """The shapes on each image, in the file's order; an image may have none.

    Polygons of one annotation are united. Raises UserError naming the file and the entry.
    """
    if problem := _FILE.problem(content):
        raise UserError(f"{path}: {problem}")
    images = _by_id(path, "images", content["images"])
    categories = _by_id(path, "categories", content["categories"])
    shapes: dict[int, list[Shape]] = {number: [] for number in images}
    for index, each in enumerate(content["annotations"]):
        where = f"{path}: annotations[{index}]"
        for key, known in (("image_id", images), ("category_id", categories)):
            if each[key] not in known:
                raise UserError(f"{where}.{key}={each[key]}: no entry has this id")
        image = images[each["image_id"]]
        try:
            pieces, raster = _geometry(each["segmentation"], _size(image))
        except ValueError as error:
            raise UserError(f"{where}.segmentation: {error}") from None
        name = categories[each["category_id"]]["name"].strip()
        shapes[each["image_id"]].append(Shape(where, (name,), pieces, raster))
        if raster and not _size(image):
            image |= {"height": raster.height, "width": raster.width}
    order = tuple(categories[number]["name"].strip() for number in sorted(categories))
    return [
        Annotated(path, shapes[number], image["file_name"], _size(image), order)
        for number, image in images.items()
    ]


def _by_id(path: Path, key: str, entries: list[dict]) -> dict[int, dict]:
    """Entries by their id. Raises UserError where one repeats."""
    table = {each["id"]: each for each in entries}
    if len(table) < len(entries):
        raise UserError(f"{path}: {key}: an id is given twice; give every entry its own")
    return table


def _size(image: dict) -> tuple[int, int] | None:
    stated = image.get("height"), image.get("width")
    return stated if all(stated) else None


def _geometry(segmentation: object, size: tuple[int, int] | None):
    """Pieces and mask of a `segmentation`, one of them empty."""
    if isinstance(segmentation, dict):
        return (), _mask(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("holds no outline (a box alone is no mask)")
    return tuple((_polygon(flat),) for flat in segmentation), None


def _polygon(flat: object):
    """A ring from x, y, x, y, ..."""
    if not isinstance(flat, list) or len(flat) % 2:
        raise ValueError("is no list of polygons [x, y, x, y, ...]")
    return ring(list(zip(flat[::2], flat[1::2], strict=True)) or [[]])


def _mask(segmentation: dict, size: tuple[int, int] | None) -> Raster:
    if problem := _RUNS.problem(segmentation):
        raise ValueError(problem)
    height, width = segmentation["size"]
    if size and size != (height, width):
        raise ValueError(f"size {height} x {width}, its image is {size[0]} x {size[1]}")
    counts = segmentation["counts"]
    if not isinstance(counts, str | list):
        raise ValueError("counts are neither a list nor a text")
    runs = rle.parse(counts, height, width)
    return Raster(0, 0, height, width, functools.partial(rle.decode, runs, height, width))
