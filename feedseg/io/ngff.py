"""What the metadata of an OME-Zarr folder say: where the pixels are, their axes and their size.

OME-NGFF up to 0.4 keeps them in `.zattrs` (Zarr 2), 0.5 under `ome` in `zarr.json` (Zarr 3). They
are JSON, so no Zarr library is needed here. What is no image, or damaged, raises `BadImage`.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from feedseg.io import selection
from feedseg.runtime import json_files
from feedseg.runtime.errors import BadImage, one_line

AXES = "tczyx"
_KEYS = {"multiscales", "plate", "well", "bioformats2raw.layout", "labels"}
_LISTED = 4  # images named in a message
_DEEP = 3  # folders from a plate to its images: row, column, field


class Layout(NamedTuple):
    """One array of pixels; names, sizes and units of its axes where they are stated."""

    array: Path
    axes: tuple[str, ...] | None = None
    scale: tuple[float, ...] | None = None
    units: tuple[str | None, ...] = ()  # of OME-NGFF, e.g. "micrometer"


def is_zarr(path: Path) -> bool:
    """Whether a path is to be read as one Zarr image: a folder called so or with such metadata.

    A folder with the metadata of an empty group is none: viewers leave them in ordinary folders.
    """
    path = Path(path)
    if not path.is_dir():
        return False
    return path.suffix.lower() == ".zarr" or _is_array(path) or bool(_KEYS & set(_attributes(path)))


def find(path: Path, series: str = "") -> Layout:
    """The array at full resolution of the first multiscale image in a folder.

    An array itself may be given too: one level of an image, which has the image's axes, or one
    without metadata. Of a folder that holds images (a plate, a bioformats2raw container) the only
    one is taken, or the series, a number from 1 or the path of the image within the folder.
    Raises BadImage naming the folder if there is none, or several.
    """
    path = Path(path)
    if not path.is_dir():
        raise BadImage(f"{path}: no such file or folder")
    if series:
        return find(_series(path, series))
    attributes = _attributes(path)
    if "multiscales" in attributes:
        return _level(path, attributes, None)
    if _is_array(path):
        above = _attributes(path.parent)
        return _level(path.parent, above, path.name) if "multiscales" in above else _bare(path)
    found = list(islice(_images(path), _LISTED))
    if len(found) == 1:
        return find(found[0])
    if found:
        kind = next((k for k in ("plate", "well") if k in attributes), "container")
        names = ", ".join(map(str, found))
        raise BadImage(
            f"{path}: a {kind} of several images; give one of them, e.g. {names}, or choose it "
            "with --series NUMBER or NAME (in training --config.data.series)"
        )
    arrays = [str(child) for child in _folders(path) if _is_array(child)][:_LISTED]
    if arrays:
        raise BadImage(f"{path}: no OME-Zarr image; give one of its arrays: {', '.join(arrays)}")
    raise BadImage(f"{path}: no OME-Zarr image in this folder (no `multiscales` metadata)")


def _series(path: Path, series: str) -> Path:
    """The image of a folder, itself or one below, by number from 1 or by its path within."""
    alone = "multiscales" in _attributes(path) or _is_array(path)
    found = [path] if alone else list(_images(path))
    names = ["" if each == path else each.relative_to(path).as_posix() for each in found]
    return found[selection.place(path, names, series)]


def channel_names(path: Path, series: str = "") -> list[str]:
    """The labels that the `omero` metadata of an image give its channels; empty without."""
    image = find(path, series).array.parent
    try:
        return [str(each["label"]) for each in _attributes(image)["omero"]["channels"]]
    except (KeyError, TypeError):
        return []


def _attributes(path: Path) -> dict:
    """Attributes of a group or an array, those of OME-NGFF 0.5 among the others."""
    attributes = _json(path / "zarr.json").get("attributes") or _json(path / ".zattrs")
    if not isinstance(attributes, dict):
        raise BadImage(f"{path}: damaged, its attributes are no JSON object; copy the folder again")
    ome = attributes.get("ome")
    return {**attributes, **ome} if isinstance(ome, dict) else attributes


def _is_array(path: Path) -> bool:
    return (path / ".zarray").is_file() or _json(path / "zarr.json").get("node_type") == "array"


def _json(path: Path) -> dict:
    """The object in a JSON file; an empty one if there is no such file."""
    try:
        return json_files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BadImage(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadImage(f"{path}: damaged, {one_line(error)}; copy the folder again") from None


def _folders(path: Path) -> list[Path]:
    """Sub-folders, 2 before 10."""
    found = [each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")]
    return sorted(found, key=lambda each: [int(n or 0) for n in re.findall(r"\d+|$", each.name)])


def _images(path: Path, deep: int = _DEEP) -> Iterator[Path]:
    """Multiscale images below a folder; the labels of an image are not looked at."""
    for child in _folders(path):
        if "multiscales" in _attributes(child):
            yield child
        elif deep > 1 and not _is_array(child):
            yield from _images(child, deep - 1)


def _level(path: Path, attributes: dict, name: str | None) -> Layout:
    """One level of the first multiscale image; name: its path within; None: the finest."""
    try:
        image = attributes["multiscales"][0]
        levels = image["datasets"]
        level = next((each for each in levels if each["path"] == name), None)
        if level is None:
            if name is not None:
                return _bare(path / name)
            level = levels[0]
        axes = image.get("axes") or list(AXES)  # 0.1 and 0.2 had these five
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
        names = tuple(str(axis["name"]).lower() for axis in axes)
        units = tuple(axis.get("unit") for axis in axes)
        _check_axes(path, names)
        return Layout(path / level["path"], names, _scale((level, image), len(axes)), units)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise BadImage(f"{path}: damaged `multiscales` metadata; write the image anew") from None


def _check_axes(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) != len(names) or not {"y", "x"} <= set(names):
        raise BadImage(f"{path}: axes {', '.join(names)} are not those of an image")


def _scale(parts: Sequence[dict], count: int) -> tuple[float, ...] | None:
    """Product of all scales of a level and of its image; None if there is none."""
    steps = [step for part in parts for step in part.get("coordinateTransformations") or ()]
    scales = [step["scale"] for step in steps if step["type"] == "scale" and "scale" in step]
    if not scales or any(len(scale) != count for scale in scales):
        return None
    return tuple(math.prod(map(float, sizes)) for sizes in zip(*scales, strict=True))


def _bare(path: Path) -> Layout:
    """An array without OME metadata; its axes where it names them as xarray and Zarr 3 do."""
    names = _json(path / "zarr.json").get("dimension_names")
    names = names or _attributes(path).get("_ARRAY_DIMENSIONS") or ()
    axes = tuple(str(name).lower() for name in names)
    known = len(set(axes)) == len(axes) and {"y", "x"} <= set(axes) <= set(AXES)
    return Layout(path, axes if known else None)


def stamp(path: Path) -> dict[str, int]:
    """Size and time of the last change of an image, a file or a folder with all in it."""
    facts = [path.stat()]
    if path.is_dir():
        facts = [
            (Path(folder) / name).stat() for folder, _, names in os.walk(path) for name in names
        ] or facts
    return {
        "bytes": sum(each.st_size for each in facts),
        "mtime_ns": max(each.st_mtime_ns for each in facts),
    }
