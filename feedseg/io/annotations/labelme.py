"""labelme: one JSON file per image with polygons, rectangles, circles, lines and masks."""

import base64
import contextlib
import functools
import io
import math
from pathlib import Path

import numpy as np

from feedseg.io.annotations.shapes import (
    FARTHEST,
    Annotated,
    Raster,
    Shape,
    box,
    ellipse,
    ring,
    stroke,
)
from feedseg.runtime.allowed import Anything, Fields, Listed, Maybe, Text, whole
from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import note

_SHAPE = Fields(
    {"label": Text(200, least=1), "points": Listed(Anything(), 1, 10**8)},
    {"shape_type": Maybe(Text(40))},
)
_SIDE = whole(1, FARTHEST)  # px
_FILE = Fields(
    {"shapes": Listed(_SHAPE, 0, 10**8)},
    {
        "imagePath": Maybe(Text(4096)),
        "imageHeight": Maybe(_SIDE),
        "imageWidth": Maybe(_SIDE),
    },
)
_LINE_PX = 1.0  # width of lines, which state none
_NO_PICTURE = "its mask is no PNG picture in base64"
_POINTS = ("point", "points")


def recognizes(content: object) -> bool:
    return isinstance(content, dict) and "shapes" in content


def read(path: Path, content: dict) -> list[Annotated]:
    """The shapes on the image that the file names, or is named after, in the file's order.

    Lines are 1 px wide; points are left out, which is said. Raises UserError naming the file and
    the shape.
    """
    if problem := _FILE.problem(content):
        raise UserError(f"{path}: {problem}")
    shapes, points = [], 0
    for index, each in enumerate(content["shapes"]):
        where, name = f"{path}: shapes[{index}]", each["label"].strip()
        if each.get("shape_type") in _POINTS:
            points += 1
            continue
        try:
            pieces, raster = _geometry(each)
        except ValueError as error:
            raise UserError(f"{where} ({name}): {error}") from None
        shapes.append(Shape(where, (name,) if name else (), pieces, raster))
    if points:
        note("points", f"{path}: {points} shapes are points, left out")
    if points and not shapes:
        return []
    size = content.get("imageHeight"), content.get("imageWidth")
    image = content.get("imagePath") or ""
    return [Annotated(path, shapes, image, size if all(size) else None)]


def _geometry(shape: dict):
    """Pieces and mask of a shape, one of them empty."""
    kind = shape.get("shape_type") or "polygon"
    points = ring(shape["points"], 1)
    match kind:
        case "polygon":
            return ((ring(points),),), None
        case "rectangle":
            (left, top), (right, bottom) = _two(points)
            return ((box(left, top, right, bottom),),), None
        case "circle":
            (x, y), rim = _two(points)
            radius = math.dist((x, y), rim)
            return ((ellipse(x, y, radius, radius),),), None
        case "line" | "linestrip":
            return stroke(ring(points, 2), _LINE_PX), None
        case "mask":
            left, top = (math.floor(value) for value in points[0])
            return (), _mask(top, left, shape.get("mask"))
    raise ValueError(f"shape_type {kind!r} is not read; draw a polygon")


def _two(points: np.ndarray) -> np.ndarray:
    if len(points) != 2:
        raise ValueError(f"{len(points)} points where two are expected")
    return points


def _mask(top: int, left: int, text: object) -> Raster:
    """A mask of a picture in base64, all whose pixels that are not 0 belong to it."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise ValueError(_NO_PICTURE) from None
    with _opened(data) as image:
        width, height = image.size
    return Raster(top, left, height, width, functools.partial(_decoded, data))


def _decoded(data: bytes) -> np.ndarray:
    with _opened(data) as image:
        return np.asarray(image.convert("L")) > 0


@contextlib.contextmanager
def _opened(data: bytes):
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ValueError(_NO_PICTURE) from None
