"""The papers' result tables, as numbers.

Means and standard deviations in percent, as printed; classes by the names of our data sets; `mean`
is the average over the classes. Rows whose average is not that of their classes say so.
"""

import json
from pathlib import Path
from typing import NamedTuple

from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

_FILE = Path(__file__).with_name("tables.json")


class Scores(NamedTuple):
    """What a row has on one data set; values: class, or `mean`, to (mean, std or None)."""

    dataset: str
    degrade: str
    metric: str  # iou | dice | mask
    values: dict[str, tuple[float, float | None]]
    misprint: str


class Row(NamedTuple):
    """A method of a table."""

    key: str
    method: str
    scores: tuple[Scores, ...]


class Table(NamedTuple):
    """A published table."""

    key: str
    paper: str
    number: int
    caption: str
    protocol: str
    decimals: int
    notes: tuple[str, ...]
    rows: tuple[Row, ...]


def names() -> list[str]:
    """Names of all tables."""
    return sorted(_read())


def table(name: str) -> Table:
    """A table by its name, in any case. Raises UserError listing those there are."""
    found = _read()
    key = name.lower()
    if key not in found:
        hint = did_you_mean(key, found)
        raise UserError(f"no table {name!r}{hint} There are: {', '.join(sorted(found))}.")
    entry = found[key]
    return Table(
        key,
        entry["paper"],
        entry["table"],
        entry["caption"],
        entry["protocol"],
        entry["decimals"],
        tuple(entry["notes"]),
        tuple(_row(name, row) for name, row in entry["rows"].items()),
    )


def _read() -> dict:
    return json.loads(_FILE.read_text("utf-8"))


def _row(key: str, entry: dict) -> Row:
    scores = tuple(
        Scores(
            each["dataset"],
            each.get("degrade", ""),
            each["metric"],
            {name: (mean, std) for name, (mean, std) in each["values"].items()},
            each.get("misprint", ""),
        )
        for each in entry["scores"]
    )
    return Row(key, entry["method"], scores)
