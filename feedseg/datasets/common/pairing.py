"""Pairing of image and label files by name, never by their order.

No image is opened. `find_pairs` returns unmatched files, so that `feedseg check` can report all of
them at once; `require_complete` raises an error for them.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from feedseg.io.images import SUFFIXES
from feedseg.runtime.errors import UserError

LAYOUT = (
    "images/ + labels/ (or masks/) with equal names; raw/ + label/; imagesTr/ + labelsTr/ "
    "(nnU-Net); x.tif beside x_masks.tif; one multi-page images.tif + labels.tif; each also inside "
    "train/, val/, test/; or a pairs.csv with the columns image,label[,part]"
)

# (folder of images, folders of labels), in lower case; the first existing pair counts
FOLDER_PAIRS = (
    ("imagestr", ("labelstr",)),
    ("images", ("labels", "masks", "label", "mask")),
    ("image", ("label", "labels", "mask", "masks")),
    ("raw", ("label", "labels", "mask", "masks")),
    ("img", ("mask", "masks", "label", "labels")),
    ("imgs", ("masks", "labels")),
)
STACKS = (  # stems of one file of images and one of labels, lower case
    (("images", "image", "raw", "img", "volume"), ("labels", "label", "masks", "mask")),
    (("train-volume",), ("train-labels",)),
)
PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
LABEL_ENDING = re.compile(r"_(masks?|labels?)$", re.IGNORECASE)
IMAGE_ENDING = re.compile(r"_img$", re.IGNORECASE)
CHANNEL_ENDING = re.compile(r"_0000$")


class Pair(NamedTuple):
    """An image file with its label file."""

    name: str
    image: Path
    label: Path
    part: str = ""  # train, val or test where the folder fixes it
    group: str = ""  # of images that stay in one part, such as those of a patient


class Pairs(NamedTuple):
    """The image and label files of a folder."""

    layout: str  # description; empty if no known layout fits
    pairs: list[Pair]
    unmatched_images: list[Path]
    unmatched_labels: list[Path]


def find_pairs(root: Path) -> Pairs:
    """Images and labels below `root` in the first layout of `LAYOUT` that fits.

    Precedence: a list (pairs.csv), parts (train/, val/, test/), folders, files.
    Raises UserError if `root` is no folder or pairs.csv is invalid.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    if (root / "pairs.csv").is_file():
        return _from_list(root / "pairs.csv")
    folders = _folders(root)
    parts = {
        part: folders[name] for part, names in PARTS.items() for name in names if name in folders
    }
    if "train" in parts:
        return _joined({part: _find(folder) for part, folder in parts.items()}, parts)
    return _find(root)


def require_complete(files: Pairs, root: Path) -> None:
    """Raises UserError if there is no pair or a file of either side has no partner."""
    if not files.layout:
        raise UserError(f"{root}: no images with labels found; expected {LAYOUT}")
    problems = [
        f"{len(paths)} {kind} ({shorten(_relative(path, root) for path in paths)})"
        for kind, paths in (
            ("images without a label", files.unmatched_images),
            ("labels without an image", files.unmatched_labels),
        )
        if paths
    ]
    if problems:
        raise UserError(
            f"{root}: {' and '.join(problems)}; pairs need equal names, "
            "move or rename the files or list them in pairs.csv"
        )
    if not files.pairs:
        raise UserError(f"{root}: {files.layout}: no images found")
    count = Counter(pair.name for pair in files.pairs)
    twice = sorted(name for name, times in count.items() if times > 1)
    if twice:
        raise UserError(f"{root}: duplicate names: {shorten(twice)}; rename the files")


def pair_folders(images: Path, labels: Path) -> Pairs:
    """Pairs of equal names between two given folders. Raises UserError if one is missing."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    layout = f"{images.name}/ + {labels.name}/"
    return _by_name(layout, _files(images), _files(labels), IMAGE_ENDING)


def shorten(values: Iterable, most: int = 5) -> str:
    """The first few values for a message: `1, 2, 3, 4, 5 and 7 more`."""
    values = list(values)
    text = ", ".join(map(str, values[:most]))
    return text + (f" and {len(values) - most} more" if len(values) > most else "")


def _find(folder: Path) -> Pairs:
    """The files of `folder` in the first layout without parts that fits."""
    for layout in (_in_folders, _as_stacks, _side_by_side):
        files = layout(folder)
        if files is not None:
            return files
    below = [path for sub in _folders(folder).values() for path in _files(sub)]
    return Pairs("", [], _files(folder) + below, [])


def _in_folders(root: Path) -> Pairs | None:
    """A folder of images and a folder of labels."""
    folders = _folders(root)
    for image_folder, label_folders in FOLDER_PAIRS:
        label_folder = next((name for name in label_folders if name in folders), None)
        if image_folder not in folders or label_folder is None:
            continue
        images, labels = _files(folders[image_folder]), _files(folders[label_folder])
        layout = f"{folders[image_folder].name}/ + {folders[label_folder].name}/"
        if len(images) == len(labels) == 1:  # one stack each, whatever their names
            return Pairs(layout, [Pair(images[0].stem, images[0], labels[0])], [], [])
        ending = CHANNEL_ENDING if image_folder == "imagestr" else IMAGE_ENDING
        return _by_name(layout, images, labels, ending)
    return None


def _as_stacks(root: Path) -> Pairs | None:
    """One multi-page file of images beside one of labels."""
    files = {path.stem.lower(): path for path in _files(root)}
    for image_stems, label_stems in STACKS:
        image = next((files[stem] for stem in image_stems if stem in files), None)
        label = next((files[stem] for stem in label_stems if stem in files), None)
        if image and label:
            pair = Pair(image.stem, image, label)
            return Pairs(f"{image.name} + {label.name}", [pair], [], [])
    return None


def _side_by_side(root: Path) -> Pairs | None:
    """x.tif or x_img.tif beside x_masks.tif."""
    files = _files(root)
    labels = [path for path in files if LABEL_ENDING.search(path.stem)]
    if not labels:
        return None
    images = [path for path in files if path not in labels]
    return _by_name("files with labels *_masks beside them", images, labels, IMAGE_ENDING)


def _by_name(layout: str, images: list[Path], labels: list[Path], ending: re.Pattern) -> Pairs:
    """Pairs of equal stems; the rest is compared without endings."""
    images, labels = _unique(images, attrgetter("stem")), _unique(labels, attrgetter("stem"))
    exact = {path.stem: path for path in labels[0]}
    pairs = [Pair(p.stem, p, exact[p.stem]) for p in images[0] if p.stem in exact]
    taken = {pair.name for pair in pairs}
    left = _unique([p for p in images[0] if p.stem not in taken], lambda p: ending.sub("", p.stem))
    rest = _unique(
        [p for p in labels[0] if p.stem not in taken], lambda p: LABEL_ENDING.sub("", p.stem)
    )
    by_key = {LABEL_ENDING.sub("", path.stem): path for path in rest[0]}
    lonely = []
    for path in left[0]:
        key = ending.sub("", path.stem)
        if key in by_key:
            pairs.append(Pair(key, path, by_key.pop(key)))
        else:
            lonely.append(path)
    return Pairs(
        layout,
        sorted(pairs),
        sorted(lonely + images[1] + left[1]),
        sorted([*by_key.values(), *labels[1], *rest[1]]),
    )


def _unique(paths: list[Path], key: Callable[[Path], str]) -> tuple[list[Path], list[Path]]:
    """(paths whose key occurs once, all paths whose key occurs more often)."""
    count = Counter(map(key, paths))
    once = [path for path in paths if count[key(path)] == 1]
    return once, [path for path in paths if count[key(path)] > 1]


def _joined(parts: dict[str, Pairs], folders: dict[str, Path]) -> Pairs:
    """All parts together; the part is prepended to the names, which may repeat across parts."""
    layouts = [
        f"{folders[part].name}/: {files.layout or 'no labels'}" for part, files in parts.items()
    ]
    return Pairs(
        "; ".join(layouts) if any(files.layout for files in parts.values()) else "",
        [
            pair._replace(name=f"{part}_{pair.name}", part=part)
            for part, files in parts.items()
            for pair in files.pairs
        ],
        [path for files in parts.values() for path in files.unmatched_images],
        [path for files in parts.values() for path in files.unmatched_labels],
    )


def _from_list(path: Path) -> Pairs:
    """Pairs of a pairs.csv; its paths are relative to its folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error}); save it as UTF-8 CSV") from None
    if not {"image", "label"} <= set(columns):
        raise UserError(f"{path}: its first line must name the columns image,label[,part]")
    pairs = [_listed(path, line, row) for line, row in enumerate(rows, start=2)]
    if len({bool(pair.part) for pair in pairs}) > 1:
        raise UserError(f"{path}: some lines have a part and others none; fill in all or none")
    return Pairs("pairs.csv", pairs, [], [])


def _listed(path: Path, line: int, row: dict[str, str]) -> Pair:
    files = []
    for column in ("image", "label"):
        text = (row.get(column) or "").strip()
        if not text or not (path.parent / text).is_file():
            raise UserError(f"{path}, line {line}: {column} {text!r} is no file")
        files.append(path.parent / text)
    part = (row.get("part") or "").strip()
    if part and part not in PARTS:
        raise UserError(f"{path}, line {line}: part {part!r}: write train, val or test")
    name = files[0].relative_to(path.parent) if files[0].is_relative_to(path.parent) else files[0]
    return Pair("_".join(name.with_suffix("").parts), files[0], files[1], part)


def _folders(root: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}


def _files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
