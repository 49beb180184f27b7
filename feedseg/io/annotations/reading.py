"""Files of annotations, recognized by their suffix and, for JSON, by what they hold."""

from pathlib import Path

from feedseg.io.annotations import coco, geojson, imagej_roi, labelme
from feedseg.io.annotations.shapes import Annotated
from feedseg.runtime import json_files
from feedseg.runtime.errors import UserError, one_line

SUFFIXES = (".roi", ".zip", ".json", ".geojson")
MOST_BYTES = 256 * 2**20  # of a JSON file
_JSON = (coco, labelme, geojson)


def read(path: Path) -> list[Annotated]:
    """The shapes of a file, image by image; [] of what holds none, such as other JSON.

    Raises UserError naming the file and the shape for what is damaged or cannot be filled.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".roi", ".zip"):
            return imagej_roi.read(path)
        content = json_files.read(path, (dict, list), MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None
    except ValueError as error:
        raise UserError(f"{path}: no readable JSON ({one_line(error)}); export it again") from None
    fitting = next((form for form in _JSON if form.recognizes(content)), None)
    return fitting.read(path, content) if fitting else []
