"""labelme: one JSON file per image with polygons, rectangles, circles, lines and masks."""

import base64
import binascii
import io
import math
from pathlib import Path

import numpy as np

from feedseg.io.annotations.shapes import Annotated, Bitmap, Shape, box, ellipse, ring, stroke
from feedseg.io.limits import check_piece
from feedseg.runtime.allowed import Anything, Fields, Listed, Maybe, Text, whole
from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import note

_SHAPE = Fields(
    {"label": Text(200, least=1), "points": Listed(Anything(), 1, 10**8)},
    {"shape_type": Maybe(Text(40))},
)
_FILE = Fields(
    {"shapes": Listed(_SHAPE, 0, 10**8)},
    {
        "imagePath": Maybe(Text(4096)),
        "imageHeight": Maybe(whole(1)),
        "imageWidth": Maybe(whole(1)),
    },
)
_LINE_PX = 1.0  # width of lines, which state none
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
        where, name = f"shapes[{index}]", each["label"].strip()
        if each.get("shape_type") in _POINTS:
            points += 1
            continue
        try:
            pieces, bitmap = _geometry(path, each)
        except ValueError as error:
            raise UserError(f"{path}: {where} ({name}): {error}") from None
        shapes.append(Shape(where, (name,) if name else (), pieces, bitmap))
    if points:
        note("points", f"{path}: {points} shapes are points, left out")
    size = content.get("imageHeight"), content.get("imageWidth")
    image = content.get("imagePath") or ""
    return [Annotated(path, shapes, image, size if all(size) else None)]


def _geometry(path: Path, shape: dict):
    """Pieces and bitmap of a shape, one of them empty."""
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
            return (), Bitmap(top, left, _mask(path, shape.get("mask")))
    raise ValueError(f"shape_type {kind!r} is not read; draw a polygon")


def _two(points: np.ndarray) -> np.ndarray:
    if len(points) != 2:
        raise ValueError(f"{len(points)} points where two are expected")
    return points


def _mask(path: Path, text: object) -> np.ndarray:
    """Pixels [h, w] bool of a picture in base64."""
    from PIL import Image

    if not isinstance(text, str):
        raise ValueError("its mask is no text")
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)
        ) as image:
            check_piece(path, image.width * image.height, "a mask", "draw a smaller one")
            return np.asarray(image.convert("L")) > 0
    except UserError:
        raise
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ValueError("its mask is no PNG picture in base64") from None
