"""GeoJSON as QuPath exports it: polygons with holes, and the class of each in its properties.

Rings and geometries are those of RFC 7946, sections 3.1.6 and 3.1.7; coordinates are px.
"""

import reprlib
from pathlib import Path

from feedseg.io.annotations.shapes import Annotated, Ring, Shape, ring, stroke
from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import note

_LINE_PX = 1.0  # width of lines, which state none


def recognizes(content: object) -> bool:
    if isinstance(content, list):
        return bool(content) and all(map(_is_feature, content))
    return isinstance(content, dict) and content.get("type") in ("Feature", "FeatureCollection")


def _is_feature(entry: object) -> bool:
    return isinstance(entry, dict) and entry.get("type") == "Feature"


def read(path: Path, content: dict | list) -> list[Annotated]:
    """The shapes on the image that the file is named after, in the file's order.

    Lines are 1 px wide; points are left out, which is said. Raises UserError naming the file and
    the feature.
    """
    features = content if isinstance(content, list) else content.get("features", [content])
    if not isinstance(features, list) or not all(map(_is_feature, features)):
        raise UserError(f"{path}: features is no list of features; export it again")
    shapes = []
    for index, feature in enumerate(features):
        where = f"{path}: features[{index}]"
        try:
            pieces = _pieces(feature.get("geometry"))
            names = _class_names(feature.get("properties"))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if pieces:
            shapes.append(Shape(where, names, pieces))
    if len(shapes) < len(features):
        note("points", f"{path}: {len(features) - len(shapes)} features are points, left out")
    return [Annotated(path, shapes)] if shapes or not features else []


def _class_names(properties: object) -> tuple[str, ...]:
    """`classification.name`, or `classification` itself in exports of early versions."""
    found = properties.get("classification") if isinstance(properties, dict) else None
    found = found.get("name") if isinstance(found, dict) else found
    if found is not None and not isinstance(found, str):
        raise ValueError("properties.classification.name is no text")
    return (found.strip(),) if found and found.strip() else ()


def _pieces(geometry: object) -> tuple[tuple[Ring, ...], ...]:
    """The union of polygons, each its outline and its holes; () for points."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    inside = geometry.get("coordinates") if kind else None
    match kind:
        case "Polygon":
            return (_rings(inside),)
        case "MultiPolygon":
            return tuple(_rings(each) for each in _listed(inside))
        case "LineString":
            return stroke(ring(inside, 2), _LINE_PX)
        case "MultiLineString":
            return tuple(
                piece for line in _listed(inside) for piece in stroke(ring(line, 2), _LINE_PX)
            )
        case "GeometryCollection":
            parts = _listed(geometry.get("geometries"))
            if any(isinstance(e, dict) and e.get("type") == "GeometryCollection" for e in parts):
                raise ValueError("geometry: a collection inside a collection; split it")
            return tuple(piece for each in parts for piece in _pieces(each))
        case "Point" | "MultiPoint":
            return ()
    raise ValueError(f"geometry of type {reprlib.repr(kind)}; export polygons")


def _rings(coordinates: object) -> tuple[Ring, ...]:
    return tuple(map(ring, _listed(coordinates)))


def _listed(value: object) -> list:
    if not isinstance(value, list) or not value:
        raise ValueError("geometry: the coordinates are empty or no list")
    return value
