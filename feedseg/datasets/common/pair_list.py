"""Pairs of an image and its label, and pairs.csv, the table that lists them."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from feedseg.runtime.errors import UserError, one_line
from feedseg.runtime.files import is_file
from feedseg.runtime.suggest import did_you_mean

COLUMNS = ("image", "label", "split", "part", "group")  # of pairs.csv; part is split
PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


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
    channel_files: tuple[str, ...] = ()  # endings of the channels, see `ReadOptions`


def named(pairs: list[Pair]) -> list[Pair]:
    """Pairs called by path (`day1/a`) with names: `day1_a`, or `day1__a` where names repeat."""

    def names(joint: str) -> list[str]:
        return [pair.name.replace("/", joint) for pair in pairs]

    joint = max(("_", "__", "___"), key=lambda joint: len(set(names(joint))))
    return [pair._replace(name=name) for pair, name in zip(pairs, names(joint), strict=True)]


def read(path: Path) -> Pairs:
    """Pairs of a pairs.csv; its paths are relative to its folder."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first = next(filter(str.strip, text.splitlines()), "")
        delimiter = max(",;\t", key=first.count)
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error}); save it as UTF-8 CSV") from None
    rows = [(number, row) for number, row in enumerate(table, 1) if any(map(str.strip, row))]
    columns = _columns(path, rows[0][1] if rows else [])
    pairs = [_listed(path, number, columns, row) for number, row in rows[1:]]
    if len({bool(pair.part) for pair in pairs}) > 1:
        raise UserError(f"{path}: some lines have a split and others none; fill in all or none")
    parts: dict[str, str] = {}
    for pair in pairs:
        if pair.group and parts.setdefault(pair.group, pair.part) != pair.part:
            raise UserError(f"{path}: group {pair.group!r} is in several parts of the split")
    return Pairs("pairs.csv", named(pairs), [], [])


def _columns(path: Path, header: list[str]) -> list[str]:
    """The names of the columns in `COLUMNS`. Raises UserError for others."""
    given = [cell.strip().lower() for cell in header]
    for name in given:
        if name not in COLUMNS:
            hint = did_you_mean(name, COLUMNS, "")
            raise UserError(f"{path}: unknown column {name!r}{hint}; known: {', '.join(COLUMNS)}")
    if {"part", "split"} <= set(given):
        raise UserError(f"{path}: the columns part and split mean the same; keep one of them")
    columns = ["split" if name == "part" else name for name in given]
    if not {"image", "label"} <= set(columns) or len(set(columns)) < len(columns):
        raise UserError(
            f"{path}: its first line must name the columns image,label[,split][,group], each once"
        )
    return columns


def _listed(path: Path, line: int, columns: list[str], cells: list[str]) -> Pair:
    if len(cells) > len(columns):
        raise UserError(f"{path}, line {line}: {len(cells)} values for {len(columns)} columns")
    raw = dict(zip(columns, cells, strict=False))
    row = {column: cell.strip() for column, cell in raw.items()}
    files = []
    for column in ("image", "label"):
        text = row.get(column, "")
        names = [text, raw[column], text.replace("\\", "/")] if text else []  # Windows' is last
        found = [path.parent / name for name in names if is_file(path.parent / name)]
        if not found:
            raise UserError(f"{path}, line {line}: {column} {one_line(repr(text))} is no file")
        files.append(found[0])
    part, given = "", row.get("split", "").lower()
    if given:
        part = next((part for part, names in PARTS.items() if given in names), "")
    if given and not part:
        raise UserError(f"{path}, line {line}: split {given!r}: write train, val or test")
    name = files[0].relative_to(path.parent) if files[0].is_relative_to(path.parent) else files[0]
    key = name.with_suffix("").as_posix()
    return Pair(key, files[0], files[1], part, row.get("group", ""))
