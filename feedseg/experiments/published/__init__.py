"""The papers' result tables as numbers, one file TABLE.json each, found by name.

Means and standard deviations in percent, as printed; classes by the names of our data sets; `mean`
is the average over the classes. Rows whose average is not that of their classes say so.
"""

import json
from pathlib import Path
from typing import NamedTuple

from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

FOLDER = Path(__file__).parent


class Scores(NamedTuple):
    """The scores of a row on one data set; values: class, or `mean`, to (mean, std or None)."""

    dataset: str
    degrade: str
    metric: str  # iou | dice | mask
    values: dict[str, tuple[float, float | None]]
    misprint: str


class TableRow(NamedTuple):
    """A method of a table."""

    key: str
    method: str
    scores: tuple[Scores, ...]


class PublishedTable(NamedTuple):
    """A published table, and the runs behind each of its numbers."""

    key: str
    paper: str
    number: int
    caption: str
    protocol: str
    folds: dict[str, int]  # by data set
    seeds: int
    arguments: str  # of all configurations, for the protocol's split
    decimals: int
    notes: tuple[str, ...]
    rows: tuple[TableRow, ...]


def names() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def table(name: str) -> PublishedTable:
    """A table by its name, in any case. Raises UserError listing those there are."""
    key = name.lower()
    if key not in names():
        hint = did_you_mean(key, names())
        raise UserError(f"no table {name!r}{hint} There are: {', '.join(names())}.")
    entry = json.loads((FOLDER / f"{key}.json").read_text("utf-8"))
    entry["number"] = entry.pop("table")
    entry["notes"] = tuple(entry["notes"])
    entry["rows"] = tuple(_row(key, row) for key, row in entry["rows"].items())
    return PublishedTable(key=key, **entry)


def _row(key: str, entry: dict) -> TableRow:
    scores = tuple(
        Scores(
            score["dataset"],
            score.get("degrade", ""),
            score["metric"],
            {name: (mean, std) for name, (mean, std) in score["values"].items()},
            score.get("misprint", ""),
        )
        for score in entry["scores"]
    )
    return TableRow(key, entry["method"], scores)
