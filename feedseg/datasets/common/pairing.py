"""Pairing of image and label files by name, never by their order.

No image is opened. `find_pairs` returns unmatched files, so that `feedseg check` can report all of
them at once; `require_complete` raises an error for them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from feedseg.datasets.common import pair_list
from feedseg.datasets.common.pair_list import PARTS, Pair, Pairs, named
from feedseg.io import channel_files
from feedseg.io.images import SUFFIXES
from feedseg.runtime.errors import UserError
from feedseg.runtime.names import one_form
from feedseg.runtime.notes import note

LAYOUT = (
    "images/ + labels/ (or masks/) with equal names; raw/ + label/; imagesTr/ + labelsTr/ "
    "(nnU-Net; _0000, _0001: channels); x.tif beside x_masks.tif; one multi-page images.tif + "
    "labels.tif; each also inside train/, val/, test/; sub-folders of images/ as those of labels/; "
    "or a pairs.csv with the columns image,label[,split or part][,group]"
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
LABEL_ENDING = re.compile(r"_(masks?|labels?)$", re.IGNORECASE)
IMAGE_ENDING = re.compile(r"_img$", re.IGNORECASE)
CHANNEL = "_0000"  # of nnU-Net, the first
CHANNEL_ENDING = re.compile(f"{CHANNEL}$")


def find_pairs(root: Path, endings: tuple[str, ...] = ()) -> Pairs:
    """Images and labels below `root` in the first layout of `LAYOUT` that fits.

    endings: of images whose channels are files of their own, which go by the first
    (`channel_files`); in nnU-Net's layout they are found. Precedence: a list (pairs.csv), parts
    (train/, val/, test/), folders, files.
    Raises UserError if `root` is no folder or pairs.csv is invalid.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    if (root / "pairs.csv").is_file():
        return pair_list.read(root / "pairs.csv")._replace(channel_files=endings)
    parts = part_folders(root)
    if "train" in parts:
        return _joined({part: _find(folder, endings) for part, folder in parts.items()}, parts)
    return _find(root, endings)


def part_folders(root: Path) -> dict[str, Path]:
    """The sub-folders that are parts of a split: train, val, test."""
    folders = _folders(root)
    return {
        part: folders[name] for part, names in PARTS.items() for name in names if name in folders
    }


def image_folder(root: Path) -> Path:
    """The sub-folder called as those of images are; without one the folder itself."""
    folders = _folders(root)
    names = dict.fromkeys(name for name, _ in FOLDER_PAIRS)
    return next((folders[name] for name in names if name in folders), root)


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
    return _by_name(f"{images.name}/ + {labels.name}/", images, labels, IMAGE_ENDING)


def shorten(values: Iterable, most: int = 5) -> str:
    """The first few values for a message: `1, 2, 3, 4, 5 and 7 more`."""
    values = list(values)
    text = ", ".join(map(str, values[:most]))
    return text + (f" and {len(values) - most} more" if len(values) > most else "")


def _find(folder: Path, endings: tuple[str, ...]) -> Pairs:
    """The files of `folder` in the first layout without parts that fits."""
    for layout in (_in_folders, _as_stacks, _side_by_side):
        files = layout(folder, endings)
        if files is not None:
            return files
    below = [path for sub in _folders(folder).values() for path in _files(sub)]
    return Pairs("", [], _files(folder) + below, [])


def _in_folders(root: Path, endings: tuple[str, ...]) -> Pairs | None:
    """A folder of images and a folder of labels."""
    folders = _folders(root)
    for image_folder, label_folders in FOLDER_PAIRS:
        label_folder = next((name for name in label_folders if name in folders), None)
        if image_folder not in folders or label_folder is None:
            continue
        sides = folders[image_folder], folders[label_folder]
        images, labels = (_files(side, deep=True) for side in sides)
        layout = f"{sides[0].name}/ + {sides[1].name}/"
        if [path.parent for path in images + labels] == list(sides):
            # one stack each, whatever their names
            return Pairs(layout, [Pair(images[0].stem, images[0], labels[0])], [], [], endings)
        if image_folder != "imagestr":
            return _by_name(layout, *sides, IMAGE_ENDING, endings)
        return _by_name(layout, *sides, CHANNEL_ENDING, endings or _nnunet_channels(images))
    return None


def _nnunet_channels(images: Iterable[Path]) -> tuple[str, ...]:
    """The endings of several channels, _0000 and _0001 and so on; () of a single one."""
    found = {match[0] for path in images if (match := channel_files.NNUNET.search(path.stem))}
    if len(found) < 2 or CHANNEL not in found:
        return ()
    endings = tuple(sorted(found))
    note("channels", f"files that end in {shorten(endings)} are stacked as channels (nnU-Net)")
    return endings


def _as_stacks(root: Path, endings: tuple[str, ...]) -> Pairs | None:
    """One multi-page file of images beside one of labels."""
    files = {path.stem.lower(): path for path in _files(root)}
    for image_stems, label_stems in STACKS:
        image = next((files[stem] for stem in image_stems if stem in files), None)
        label = next((files[stem] for stem in label_stems if stem in files), None)
        if image and label:
            pair = Pair(image.stem, image, label)
            return Pairs(f"{image.name} + {label.name}", [pair], [], [], endings)
    return None


def _side_by_side(root: Path, endings: tuple[str, ...]) -> Pairs | None:
    """x.tif or x_img.tif beside x_masks.tif."""
    files = _files(root)
    labels = {path: path.stem for path in files if LABEL_ENDING.search(path.stem)}
    if not labels:
        return None
    images = {path: path.stem for path in files if path not in labels}
    layout = "files with labels *_masks beside them"
    return _by_key(layout, images, labels, IMAGE_ENDING, endings)


def _by_name(
    layout: str, images: Path, labels: Path, ending: re.Pattern, endings: tuple[str, ...] = ()
) -> Pairs:
    """Pairs of equal names in two folders, and in sub-folders of equal names."""
    sides = ({p: _stem(p, side) for p in _files(side, deep=True)} for side in (images, labels))
    return _by_key(layout, *sides, ending, endings)


def _stem(path: Path, folder: Path) -> str:
    """`day1/a` of folder/day1/a.tif."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_key(
    layout: str,
    image_keys: dict[Path, str],
    label_keys: dict[Path, str],
    ending: re.Pattern,
    endings: tuple[str, ...],
) -> Pairs:
    """Pairs of equal keys; the rest is compared without endings, with accents in one form."""
    if endings:
        image_keys = {path: image_keys[path] for path in channel_files.firsts(image_keys, endings)}
        ending = re.compile(f"{re.escape(endings[0])}$")
    images, labels = _unique(image_keys, image_keys.get), _unique(label_keys, label_keys.get)
    exact = {label_keys[path]: path for path in labels[0]}
    keys = {path: image_keys[path] for path in images[0] if image_keys[path] in exact}
    pairs = [Pair(key, path, exact[key]) for path, key in keys.items()]
    taken = set(keys.values())

    def image_key(path: Path) -> str:
        return ending.sub("", one_form(image_keys[path]))

    def label_key(path: Path) -> str:
        return LABEL_ENDING.sub("", one_form(label_keys[path]))

    left = _unique([p for p in images[0] if image_keys[p] not in taken], image_key)
    rest = _unique([p for p in labels[0] if label_keys[p] not in taken], label_key)
    by_key = {label_key(path): path for path in rest[0]}
    lonely = []
    for path in left[0]:
        key = image_key(path)
        if key in by_key:
            pairs.append(Pair(ending.sub("", image_keys[path]), path, by_key.pop(key)))
        else:
            lonely.append(path)
    return Pairs(
        layout,
        sorted(named(pairs)),
        sorted(lonely + images[1] + left[1]),
        sorted([*by_key.values(), *labels[1], *rest[1]]),
        endings,
    )


def _unique(paths: Iterable[Path], key: Callable[[Path], str]) -> tuple[list[Path], list[Path]]:
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
        max((files.channel_files for files in parts.values()), key=len),
    )


def _folders(root: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}


def _files(folder: Path, deep: bool = False) -> list[Path]:
    """Images of a folder, or of its sub-folders too; hidden ones are passed over."""
    return files_below(folder) if deep else _files_in([folder], SUFFIXES)


def files_below(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Files of a folder and its sub-folders with these suffixes; hidden ones are passed over."""
    return _files_in([folder, *_sub_folders(folder)], suffixes)


def _files_in(folders: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    inside = (path for each in folders for path in each.iterdir() if path.name[0] != ".")
    return sorted(path for path in inside if path.suffix.lower() in suffixes and path.is_file())


def _sub_folders(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Sub-folders of any depth, linked ones too unless they lead back up; no hidden ones."""
    above = (*above, folder.resolve())
    for path in folder.iterdir():
        if path.name[0] != "." and path.is_dir() and path.resolve() not in above:
            yield path
            yield from _sub_folders(path, above)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
