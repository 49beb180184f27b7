"""Tables of a report as Markdown, LaTeX, HTML and CSV."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feedseg.experiments.report.collect import Collection, Method
from feedseg.experiments.report.provenance import provenance
from feedseg.runtime import escape
from feedseg.runtime.tables import Bold, known, markdown, mean_and_std, write_csv

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
} | {sign: "\\" + sign for sign in "&%$#_{}"}


class TextCell(NamedTuple):
    """Text, and whether it is the best of its column."""

    text: str
    best: bool = False


class TextTable(NamedTuple):
    """Rows of cells below a head; the first column is text, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[TextCell, ...], ...]


def plain_table(head: Sequence[str], rows: Sequence[Sequence]) -> TextTable:
    """A table without a best value."""
    return TextTable(
        tuple(head), tuple(tuple(TextCell(str(value)) for value in row) for row in rows)
    )


def columns(collection: Collection, metric: str) -> dict[str, str]:
    """Key of a score -> title of its column: the mean and every class. metric: `iou` | `dice`."""
    title = {"iou": "mean IoU", "dice": "mean Dice"}[metric]
    return {f"m{metric}": title} | {f"{metric}/{name}": name for name in collection.class_names}


def score_table(collection: Collection, metric: str) -> TextTable:
    """Scores of each method in percent, mean ± population standard deviation over its runs.

    The best mean of a column is marked where there are several methods on the same test images.
    """
    keys = columns(collection, metric)
    marked = len(collection.methods) > 1 and collection.comparable
    best = {key: _best(collection.methods, key) if marked else None for key in keys}
    rows = []
    for method in collection.methods:
        cells = [TextCell(method.name), TextCell(str(len(method.runs)))]
        for key in keys:
            mean = _mean(method.scores(key))
            cells.append(
                TextCell(mean_and_std(method.scores(key)), mean == best[key] and mean != "-")
            )
        rows.append((*cells, TextCell(_parameters(method)), TextCell(_seconds(method))))
    return TextTable(("method", "runs", *keys.values(), "parameters", "seconds"), tuple(rows))


def _mean(values: Sequence[float | None]) -> str:
    """As printed: numbers that look equal are equal."""
    numbers = known(values)
    return f"{np.mean(numbers):.2f}" if numbers else "-"


def _best(methods: Sequence[Method], key: str) -> str | None:
    means = [_mean(method.scores(key)) for method in methods]
    return max((mean for mean in means if mean != "-"), key=float, default=None)


def _parameters(method: Method) -> str:
    counts = {run.result.get("parameters") for run in method.runs}
    return " / ".join(f"{count:,}" for count in sorted(counts - {None})) or "-"


def _seconds(method: Method) -> str:
    return mean_and_std([run.result.get("seconds") for run in method.runs], digits=0)


# Forms --------------------------------------------------------------------------------------------


def as_markdown(table: TextTable) -> str:
    """A Markdown table, best values bold."""
    rows = [[Bold(c.text) if c.best else c.text for c in row] for row in table.rows]
    return "\n".join(markdown(table.head, rows, "lr")) + "\n"


def as_latex(table: TextTable, comments: Sequence[str]) -> str:
    """A LaTeX `tabular` that needs no package, best values bold, after the comments."""
    lines = [f"% {escape.visible(line)}" for line in comments]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\hline"]
    lines += [_latex_row(map(latex, table.head)), r"\hline"]
    for row in table.rows:
        lines.append(_latex_row(_latex_cell(cell) for cell in row))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(sign, sign) for sign in escape.visible(text))


def _latex_cell(cell: TextCell) -> str:
    text = latex(cell.text)
    bold = text.replace(r"$\pm$", r"{\boldmath$\pm$}")
    return rf"\textbf{{{bold}}}" if cell.best else text


def _latex_row(cells) -> str:
    return " & ".join(cells) + r" \\"


def as_html(table: TextTable) -> str:
    """An HTML table, best values bold, all text escaped."""
    lines = ["<div class='wide'><table>", _html_row(map(TextCell, table.head), "th")]
    lines += [_html_row(row, "td") for row in table.rows]
    return "\n".join([*lines, "</table></div>"])


def _html_row(cells, tag: str) -> str:
    texts = [f"<b>{escape.html(c.text)}</b>" if c.best else escape.html(c.text) for c in cells]
    return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"


# CSV ----------------------------------------------------------------------------------------------


def as_csv(rows: Sequence[dict]) -> str:
    """Comma-separated values with a head; None and NaN are empty, numbers have 6 digits."""
    stream = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_csv(stream, columns, rows, "{:.6g}".format)
    return stream.getvalue()


def method_rows(collection: Collection, metric: str) -> list[dict]:
    """A mapping per method: mean, population standard deviation and count of every score, in %."""
    rows = []
    for method in collection.methods:
        row = {"method": method.name, "runs": len(method.runs)}
        for key in columns(collection, metric):
            numbers = known(method.scores(key))
            row[f"{key}_mean"] = float(np.mean(numbers)) if numbers else None
            row[f"{key}_std"] = float(np.std(numbers)) if len(numbers) > 1 else None
        seconds = known(run.result.get("seconds") for run in method.runs)
        row["parameters"] = _parameters(method).replace(",", "")
        rows.append(row | {"seconds_mean": float(np.mean(seconds)) if seconds else None})
    return rows


def run_rows(collection: Collection) -> list[dict]:
    """A mapping per run: all its scores in percent, border scores as they are, provenance."""
    return [
        {"method": method.name, "run": str(run.folder), "fold": run.fold, "seed": run.seed}
        | {"output": run.output}
        | {key: run.score(key) for key in run.result["metrics"][run.output]}
        | {f"boundary/{key}": value for key, value in run.result.get("boundary", {}).items()}
        | {"best_epoch": run.result.get("best", {}).get("epoch")}
        | {key: run.result.get(key) for key in ("parameters", "seconds")}
        | provenance(run)
        for method in collection.methods
        for run in method.runs
    ]
