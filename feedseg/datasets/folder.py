"""A user's own images and labels: layouts found by name, classes found in the labels.

`load` takes the folder itself (`data_dir`). Pages of a stack become sections of their own.
"""

import colorsys
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common import label_map, pairing, pixel_size, readers
from feedseg.datasets.common.dataset import VOID, RawData, Section
from feedseg.datasets.common.pairing import Pair, shorten
from feedseg.io.images import is_color
from feedseg.io.reading import ReadOptions
from feedseg.runtime import json_files
from feedseg.runtime.allowed import Listed, Text
from feedseg.runtime.errors import BadImage, UserError, one_line
from feedseg.runtime.notes import note

FOLDERS = ()  # the data directory itself
CLASSES = ()  # found in the labels
COLORS = ()
LICENCE = "Your own data"
CITATION = ""
LAYOUT = pairing.LAYOUT
OBTAIN = "Name your folder: --config.data_dir=FOLDER"

NAMES = Listed(Text(200, least=1), 0, VOID)  # of classes, whose ids are below VOID
PALETTE = (
    (0, 0, 0),
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (255, 225, 25),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
)


class Description(NamedTuple):
    """Class names and ignored label value as stated in a folder."""

    names: tuple[str, ...] = ()
    ignore: int | None = None  # label value of ignored pixels


def load(root: Path, options) -> RawData:
    """Sections of all pairs below `root`, with class ids and names.

    options.label_map: gray values to ids, see `label_map.parse`; options.classes: names in the
    order of the ids, else those of dataset.json or classes.txt, else class0, class1, ...
    options.pixel_size: µm, to which all are brought (`pixel_size.at`); 0: as stored.
    Raises UserError naming the file if a partner is missing, sizes or types differ, or labels are
    no class ids (with a proposed label_map).
    """
    how = readers.read_options(options)
    files = pairing.find_pairs(root, how.channel_files)
    how = how._replace(channel_files=files.channel_files)
    pairing.require_complete(files, root)
    described = describe(root, options.classes)
    rules = label_map.parse(options.label_map)
    group_of = grouping(root, files.pairs, options.get("group", ""))
    conversion = readers.conversion(options)
    read = {
        pair: _read(pair, conversion, rules, described.ignore, how, group_of[pair])
        for pair in files.pairs
    }
    _require_one_kind(read)
    num_classes = _num_classes(read, len(described.names), options.label_map)
    parts = {
        part: [s.name for pair, group in read.items() if pair.part == part for s in group]
        for part in dict.fromkeys(pair.part for pair in files.pairs if pair.part)
    }
    sections = [
        section._replace(label=section.label.astype(np.uint8))
        for group in read.values()
        for section in group
    ]
    if wanted_um := options.pixel_size:
        of = [pair.image for pair, group in read.items() for _ in group]
        sections = [
            pixel_size.at(section, path, how, wanted_um)
            for section, path in zip(sections, of, strict=True)
        ]
    names = described.names or default_names(num_classes)
    first = files.pairs[0].image
    counts = [label_map.objects_of(s.label) for s in sections if s.label.any()]
    if not rules and (remark := label_map.instances(counts)):
        note("instances", f"{root}: {remark} (--config.data.label_map)")
    return RawData(
        sections,
        names,
        palette(num_classes),
        parts,
        color=is_color(first, how),
        pixel_um=wanted_um or pixel_size.common(root, (pair.image for pair in files.pairs), how),
    )


def grouping(root: Path, pairs: Sequence[Pair], pattern: str = "") -> dict[Pair, str]:
    """The group of each pair: as its list says, else by the pattern, else its file.

    pattern: a regular expression for the path below `root`, whose first group in parentheses, or
    else all of it, names the group. Raises UserError for an invalid one, or a file that it misses.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"split.group={pattern!r}: is no regular expression ({error})") from None
    groups = {}
    for pair in pairs:
        inside = pair.image.is_relative_to(root)
        path = (pair.image.relative_to(root) if inside else pair.image).as_posix()
        match = expression.search(path) if pattern else None
        if pattern and not match:
            raise UserError(f"split.group={pattern!r}: does not fit {path}")
        named = match[1] if match and match.groups() else match and match[0]
        groups[pair] = pair.group or named or str(pair.image)
    return groups


def describe(root: Path, classes: tuple[str, ...] = ()) -> Description:
    """Class names from `classes`, else dataset.json, else classes.txt (one name per line).

    dataset.json: `labels` as nnU-Net writes them, {name: id} or {id: name}; the name `ignore`
    marks ignored pixels. Raises UserError if names repeat or ids are not 0, 1, ...
    """
    described = Description()
    if (root / "dataset.json").is_file():
        described = _from_json(root / "dataset.json")
    elif (root / "classes.txt").is_file():
        described = Description(_listed_names(root / "classes.txt"))
    if classes:
        described = described._replace(names=tuple(classes))
    if problem := NAMES.problem(described.names, "classes"):
        raise UserError(f"{root}: {problem}")
    if len(set(described.names)) != len(described.names):
        raise UserError(f"{root}: class names repeat: {', '.join(described.names)}")
    return described


def default_names(num_classes: int) -> tuple[str, ...]:
    """Names of classes that nobody named."""
    return tuple(f"class{index}" for index in range(num_classes))


def without_ignored(labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """Labels whose ignored value, if there is one, is void."""
    return labels if ignore is None else np.where(labels == ignore, VOID, labels)


def _listed_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); save it as UTF-8") from None
    return tuple(line.strip() for line in lines if line.strip())


def palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct RGB colors, black first."""
    colors = list(PALETTE[:num_classes])
    for index in range(num_classes - len(colors)):
        hue, value = (index * 0.618034) % 1.0, 1.0 - 0.25 * (index % 3)
        colors.append(tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.55, value)))
    return tuple(colors)


def _from_json(path: Path) -> Description:
    try:
        listed = json_files.read(path)
        table = listed.get("labels") or {}
        if not isinstance(table, dict):  # other tools keep a file pattern under this key
            table = listed.get("classes") or {}
        if not isinstance(table, dict):
            raise ValueError(f"classes={reprlib.repr(table)}")
        pairs = [_numbered(*item) for item in table.items()]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: invalid ({one_line(error)}); labels must be {{name: id}} with one id per name"
        ) from None
    ignore = next((number for number, name in pairs if name == "ignore"), None)
    pairs = sorted(pair for pair in pairs if pair[1] != "ignore")
    numbers = [number for number, _ in pairs]
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"{path}: label ids {shorten(numbers)} are not 0, 1, 2, ...; number them so there, and "
            "in the labels by a label map"
        )
    return Description(tuple(name for _, name in pairs), ignore)


def _numbered(key: str, value: object) -> tuple[int, str]:
    """Id and name of a class from {name: id} or {id: name}. Raises ValueError for anything else."""
    number, name = (key, value) if key.isdecimal() else (value, key)
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not isinstance(name, str) or not (whole or (isinstance(number, str) and number.isdecimal())):
        raise ValueError(f"{reprlib.repr(key)}: {reprlib.repr(value)}")
    return int(number), name


def _read(
    pair: Pair,
    channels: str,
    rules: list[label_map.Rule],
    ignore: int | None,
    how: ReadOptions,
    group: str,
) -> list[Section]:
    """Sections of one pair of files, labels as stored or mapped by `rules`."""
    images = readers.read_pages(pair.image, channels, how)
    labels = readers.read_labels(pair.label, how, len(images))
    if len(images) != len(labels):
        raise UserError(
            f"{pair.label}: {len(labels)} pages, its image {pair.image.name} has {len(images)}; "
            "if its channels are taken for pages, name its axes: --config.data.axes=CYX or YXC"
        )
    try:
        labels = label_map.apply(labels, rules) if rules else labels
    except UserError as error:
        raise BadImage(f"{pair.label}: {error}") from None
    labels = labels if rules else without_ignored(labels, ignore)
    numbered = len(images) > 1
    return [
        readers.section(
            f"{pair.name}_p{i:03d}" if numbered else pair.name, image, label, pair.label
        )._replace(group=group)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _require_one_kind(read: dict[Pair, list[Section]]) -> None:
    """Raises UserError naming the first file whose pixel type or channels differ."""
    kinds = {pair: (group[0].image.dtype, group[0].image.shape[2]) for pair, group in read.items()}
    first, (dtype, channels) = next(iter(kinds.items()))
    for pair, kind in kinds.items():
        if kind != (dtype, channels):
            raise UserError(
                f"{pair.image}: {kind[0]} with {kind[1]} channels, {first.image.name} is {dtype} "
                f"with {channels}; convert them to one type (color and gray: data.channels=grey)"
            )


def _num_classes(read: dict[Pair, list[Section]], named: int, mapping: str) -> int:
    """Number of classes, from the names or the ids. Raises UserError if the ids are not valid."""
    values = {
        pair.label: sorted({v for s in group for v in label_map.unique(s.label)})
        for pair, group in read.items()
    }
    ids = np.unique(np.concatenate(list(values.values())))
    problem = label_map.problem(ids, named)
    if problem and mapping:
        raise UserError(
            f"data.label_map={mapping}: gives the ids {shorten(ids.tolist())}; it must give "
            f"{f'ids below {named}' if named else 'consecutive ids from 0'} (255: ignored)"
        )
    if problem:
        example = max(values, key=lambda path: [v for v in values[path] if v != VOID][-1:])
        others = f" and {len(values) - 1} more" if len(values) > 1 else ""
        raise UserError(f"{example}{others}: {problem}")
    return named or int(ids[ids != VOID].max()) + 1


PREPARATION = dict(
    data=dict(normalization="image_percentile"), split=dict(group_by_source=True, scheme="auto")
)
