"""Our numbers beside those of a published table, as Markdown and as a record."""

from collections.abc import Sequence

import numpy as np

import feedseg
from feedseg.experiments.published import PublishedTable
from feedseg.experiments.table_runs import Choice, TableCell
from feedseg.runs.directory import RunDir
from feedseg.runtime import escape
from feedseg.runtime.tables import markdown, mean_and_std

_UNITS = {"iou": "IoU, %", "dice": "Dice, %", "mask": "as Keras gives them"}
_ORIGIN = ("config_hash", "data_hash", "version", "jax", "device", "seconds", "best")


def values(cell: TableCell) -> dict[str, list[float]]:
    """Our numbers of every class and of the mean, one per finished run, in the paper's unit."""
    numbers: dict[str, list[float]] = {}
    for trial in cell.trials:
        if not (result := RunDir(trial.workdir).finished()):
            continue
        for name, value in _values(result, cell).items():
            if value is not None and np.isfinite(value):
                numbers.setdefault(name, []).append(value)
    return numbers


def _values(result: dict, cell: TableCell) -> dict[str, float | None]:
    kind = cell.scores.metric
    if kind == "mask":
        return {name: result.get("mask", {}).get(name) for name in cell.scores.values}
    scores = result["metrics"][cell.output]
    fractions = {name: scores.get(f"{kind}/{name}") for name in result["class_names"]}
    fractions["mean"] = scores.get(f"m{kind}")
    return {name: None if value is None else 100 * value for name, value in fractions.items()}


def as_text(table: PublishedTable, cells: Sequence[TableCell], choice: Choice) -> str:
    """Markdown: for every class `ours ± std / published / difference`."""
    number = f"Table {table.number}" if table.number else ""
    lines = [f"# {table.key}", "", f"{table.caption}. {table.paper}, {number}".rstrip(", ") + "."]
    lines += ["", f"Protocol: {table.protocol}.", ""]
    for block in dict.fromkeys(cell.block for cell in cells):
        lines += _block(table, [cell for cell in cells if cell.block == block])
    lines += [f"- {escape.markdown_line(note)}" for note in _notes(table, cells, choice)]
    return "\n".join(lines)


def _block(table: PublishedTable, cells: Sequence[TableCell]) -> list[str]:
    """The lines of the cells of one data set and metric."""
    dataset, degrade, metric = cells[0].block
    ours = [values(cell) for cell in cells]
    names = list(dict.fromkeys(name for cell in cells for name in cell.scores.values))
    names = names or list(dict.fromkeys(name for numbers in ours for name in numbers))
    unit = f"{_UNITS[metric]}; ours ± std / paper / difference"
    title = f"{dataset}{', ' + degrade if degrade else ''}: {unit}"
    rows = []
    for cell, numbers in zip(cells, ours, strict=True):
        count = max(map(len, numbers.values()), default=0)
        texts = [_compared(table, cell, name, numbers.get(name, [])) for name in names]
        rows.append([cell.row.method, f"{count} of {cell.full}", *texts])
    return [title, "", *markdown(["method", "runs", *names], rows), ""]


def _compared(table: PublishedTable, cell: TableCell, name: str, ours: Sequence[float]) -> str:
    mean, std = cell.scores.values.get(name, (None, None))
    digits = table.decimals
    paper = "-" if mean is None else f"{mean:.{digits}f}"
    if std is not None:
        paper += f" ± {std:.{digits}f}"
    difference = f"{np.mean(ours) - mean:+.{digits}f}" if ours and mean is not None else "-"
    return f"{mean_and_std(ours, digits)} / {paper} / {difference}"


def _notes(table: PublishedTable, cells: Sequence[TableCell], choice: Choice) -> list[str]:
    """Notes of the table, misprints, deviations from the paper's protocol, and the version."""
    notes = list(table.notes)
    for cell in cells:
        if cell.scores.misprint:
            where = f"{cell.row.method} on {cell.scores.dataset} {cell.scores.degrade}".rstrip()
            notes.append(f"Misprint: the average of {where}; {cell.scores.misprint}.")
    deviations = [
        f"{key} {', '.join(map(str, chosen))} only"
        for key in ("rows", "data", "folds", "seeds")
        if (chosen := getattr(choice, key))
    ]
    if choice.recipe != "paper":
        deviations.append(f"recipe {choice.recipe}, not the paper's")
    deviations += [f"changed: {override}" for override in choice.overrides]
    if deviations:
        notes.append("NOT the paper's protocol: " + "; ".join(deviations) + ".")
    return [
        *notes,
        f"Standard deviations are those of the population. feedseg {feedseg.__version__}.",
    ]


def record(table: PublishedTable, cells: Sequence[TableCell], choice: Choice) -> dict:
    """The numbers and their origin as plain data."""
    runs = {}
    for trial in {trial for cell in cells for trial in cell.trials}:
        if result := RunDir(trial.workdir).finished():
            runs[trial.config] = {key: result.get(key) for key in _ORIGIN}
    rows = [
        {
            "method": cell.row.key,
            "dataset": cell.scores.dataset,
            "degrade": cell.scores.degrade,
            "metric": cell.scores.metric,
            "ours": values(cell),
            "published": cell.scores.values,
        }
        for cell in cells
    ]
    return {"table": table.key, "choice": choice._asdict(), "rows": rows, "runs": runs}
