"""Tables as text: aligned columns for the console, Markdown and CSV; numbers in their cells.

Text in a cell, whatever it holds, stays text in it (`feedseg.runtime.escape`).
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

import numpy as np

from feedseg.runtime import escape

GAP = "  "


def aligned(rows: Sequence[Sequence], align: str = "lr", least: int = 0) -> list[str]:
    """Lines of text, the columns two spaces apart.

    align: `l` or `r` per column, left or right; the last letter counts for all further columns.
    least: minimum width of the right-aligned columns, in characters.
    """
    cells = [[escape.visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = align.ljust(len(widths), align[-1])
    columns = list(zip(widths, sides, strict=False))
    return [
        GAP.join(
            cell.ljust(width) if side == "l" else cell.rjust(max(width, least))
            for cell, (width, side) in zip(row, columns, strict=True)
        ).rstrip()
        for row in cells
    ]


def ruled(lines: Sequence[str]) -> list[str]:
    """The lines of a table with a rule below the head."""
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown(head: Sequence, rows: Iterable[Sequence], align: str = "l") -> list[str]:
    """Lines of a Markdown table. align: as in `aligned`."""
    sides = align.ljust(len(head), align[-1])[: len(head)]
    rule = ["---:" if side == "r" else "---" for side in sides]
    first, *others = (_row(map(_markdown_cell, row)) for row in (head, *rows))
    return [first, _row(rule), *others]


class Bold(str):
    """Text of a cell that is bold in Markdown."""


def _markdown_cell(cell) -> str:
    text = escape.markdown(cell)
    return f"**{text}**" if isinstance(cell, Bold) else text


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_csv(
    stream: TextIO,
    columns: Sequence[str],
    rows: Iterable[Mapping],
    number: Callable[[float], object] = float,
) -> None:
    """Comma-separated values with a head line; None, NaN and missing values are empty.

    Text is as by `escape.csv`.

    number: form of a floating point number.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(escape.csv, columns))
    writer.writerows([_csv_cell(row.get(key), number) for key in columns] for row in rows)


def _csv_cell(value, number: Callable[[float], object]):
    if isinstance(value, float):
        return "" if math.isnan(value) else number(value)
    if isinstance(value, str):
        return escape.csv(value)
    return "" if value is None else value


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are numbers: neither None nor NaN."""
    return [value for value in values if value is not None and not math.isnan(value)]


def percent(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A fraction in percent; `-` for None and NaN. sign: `+` for differences."""
    return f"{100 * value:{sign}.{digits}f}" if known([value]) else "-"


def mean_and_std(values: Iterable[float | None], digits: int = 2) -> str:
    """`mean ± population standard deviation`; one value alone; `-` without any number.

    values: None and NaN are left out.
    """
    numbers = known(values)
    if not numbers:
        return "-"
    spread = f" ± {np.std(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.{digits}f}{spread}"
