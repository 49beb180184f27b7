"""`feedseg reproduce TABLE`: the runs behind a published table, and our numbers beside its own.

Folds and initial values are those of the paper; what was left out or changed is said in the table.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import feedseg
from feedseg.experiments import published, sweep, trials
from feedseg.experiments.trials import Trial
from feedseg.runs import config as configs
from feedseg.runs import directory
from feedseg.runtime import files
from feedseg.runtime.errors import UserError
from feedseg.runtime.tables import markdown, mean_and_std


class Choice(NamedTuple):
    """What of a table is run; empty: all of it. overrides: KEY=VALUE for every configuration."""

    rows: tuple[str, ...] = ()
    data: tuple[str, ...] = ()  # `irpe`, or with its degradation, `isbi2012-noise`
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    recipe: str = "paper"
    overrides: tuple[str, ...] = ()


class Cell(NamedTuple):
    """A row of a table on one data set, with its runs."""

    row: published.TableRow
    scores: published.Scores
    output: str
    trials: tuple[Trial, ...]
    full: int  # runs that the paper's protocol has


def plan(table: published.PublishedTable, choice: Choice, root: Path) -> list[Cell]:
    """The runs of every chosen row. Raises UserError listing what there is for a wrong choice."""
    tables = _tables()
    known = [row.key for row in table.rows]
    if wrong := [key for key in choice.rows if key not in known]:
        raise UserError(f"{table.key} has no row {wrong[0]!r}; its rows: {', '.join(known)}")
    parts = dict.fromkeys(name for row in table.rows for s in row.scores for name in _names(s))
    if wrong := [key for key in choice.data if key not in parts]:
        raise UserError(f"{table.key} has no data {wrong[0]!r}; there are: {', '.join(parts)}")
    cells = []
    for row in table.rows:
        if choice.rows and row.key not in choice.rows:
            continue
        method = tables.METHODS[row.key]
        for scores in row.scores:
            if choice.data and not set(choice.data) & set(_names(scores)):
                continue
            folds, seeds = table.folds[scores.dataset], table.seeds
            chosen_folds = _chosen("folds", choice.folds, folds)
            chosen_seeds = _chosen("seeds", choice.seeds, seeds)
            runs = tuple(
                trials.placed(
                    tables.config_string(
                        row.key,
                        table.arguments,
                        scores.dataset,
                        scores.degrade,
                        fold,
                        seed,
                        choice.recipe,
                    ),
                    (*method.overrides, *choice.overrides),
                    root,
                )
                for fold in chosen_folds
                for seed in chosen_seeds
            )
            cells.append(Cell(row, scores, method.output, runs, folds * seeds))
    return cells


def _names(scores: published.Scores) -> list[str]:
    """How a data set may be called: by its name, and with its degradation."""
    return [scores.dataset] + [f"{scores.dataset}-{scores.degrade}"] * bool(scores.degrade)


def _tables():
    """The methods' configurations, which are no part of the package."""
    try:
        from configs import tables
    except ImportError:
        raise UserError(
            "no configs/tables here: give the command in a checkout of feedseg"
        ) from None
    return tables


def _chosen(key: str, asked: Sequence[int], count: int) -> Sequence[int]:
    if wrong := [number for number in asked if not 0 <= number < count]:
        raise UserError(f"--{key} {wrong[0]}: the protocol has {count}, counted from 0")
    return asked or range(count)


def tasks(cells: Sequence[Cell], together: int) -> list[trials.Task]:
    """What each process makes: up to `together` runs of a row. A run of two rows is made once."""
    found: list[trials.Task] = []
    planned: set[Trial] = set()
    for cell in cells:
        new = [trial for trial in cell.trials if trial not in planned]
        planned.update(new)
        found += [tuple(new[i : i + together]) for i in range(0, len(new), together)]
    return found


def available(cells: Sequence[Cell], say: Callable[[str], None]) -> list[Cell]:
    """The cells whose data are here. Raises UserError if none is."""
    found, missing = [], {}
    for cell in cells:
        name = cell.scores.dataset
        if name not in missing:
            config, _ = configs.parse_flags(cell.trials[0].arguments())
            missing[name] = _why_missing(config)
        if not missing[name]:
            found.append(cell)
    for name, why in missing.items():
        if why:
            say(f"left out: {name}: {why.splitlines()[0]}")
    if not found:
        raise UserError(next(why for why in missing.values() if why))
    return found


def _why_missing(config) -> str:
    from feedseg import datasets

    try:
        datasets.find_root(config.data.name, config.data_dir)
    except UserError as error:
        return str(error)
    return ""


# Numbers ------------------------------------------------------------------------------------------


def values(cell: Cell) -> dict[str, list[float]]:
    """Our numbers of every class and of the mean, one per finished run, in the paper's unit."""
    found: dict[str, list[float]] = {}
    for trial in cell.trials:
        path = trial.workdir / "result.json"
        if not path.exists():
            continue
        result = directory.read_json(path)
        for name, value in _values(result, cell).items():
            if value is not None and np.isfinite(value):
                found.setdefault(name, []).append(value)
    return found


def _values(result: dict, cell: Cell) -> dict[str, float | None]:
    if cell.scores.metric == "mask":
        return {name: result.get("mask", {}).get(name) for name in cell.scores.values}
    kind = cell.scores.metric
    scores = result["metrics"][cell.output]
    classes = {name: scores.get(f"{kind}/{name}") for name in result["class_names"]}
    percent = {**classes, "mean": scores.get({"iou": "miou", "dice": "mdice"}[kind])}
    return {name: None if v is None else 100 * v for name, v in percent.items()}


def as_text(table: published.PublishedTable, cells: Sequence[Cell], choice: Choice) -> str:
    """Markdown: for every class `ours ± std / published / difference`."""
    number = f"Table {table.number}" if table.number else ""
    lines = [f"# {table.key}", "", f"{table.caption}. {table.paper}, {number}".rstrip(", ") + "."]
    lines += ["", f"Protocol: {table.protocol}.", ""]
    for block in dict.fromkeys(
        (c.scores.dataset, c.scores.degrade, c.scores.metric) for c in cells
    ):
        mine = [c for c in cells if (c.scores.dataset, c.scores.degrade, c.scores.metric) == block]
        lines += _block(table, block, mine)
    lines += [f"- {note}" for note in _notes(table, cells, choice)]
    return "\n".join(lines)


def _block(
    table: published.PublishedTable, block: tuple[str, str, str], cells: Sequence[Cell]
) -> list[str]:
    dataset, degrade, metric = block
    unit = {"iou": "IoU, %", "dice": "Dice, %", "mask": "as Keras gives them"}[metric]
    ours = [values(cell) for cell in cells]
    names = list(dict.fromkeys(n for c in cells for n in c.scores.values))
    names = names or list(dict.fromkeys(n for each in ours for n in each))
    title = f"{dataset}{', ' + degrade if degrade else ''}: {unit}; ours ± std / paper / difference"
    rows = []
    for cell, found in zip(cells, ours, strict=True):
        count = max(map(len, found.values()), default=0)
        numbers = [_number(table, cell, name, found.get(name, [])) for name in names]
        rows.append([cell.row.method, f"{count} of {cell.full}", *numbers])
    return [title, "", *markdown(["method", "runs", *names], rows), ""]


def _number(table: published.PublishedTable, cell: Cell, name: str, found: Sequence[float]) -> str:
    mean, std = cell.scores.values.get(name, (None, None))
    digits = table.decimals
    paper = "-" if mean is None else f"{mean:.{digits}f}"
    if std is not None:
        paper += f" ± {std:.{digits}f}"
    known = found and mean is not None
    difference = f"{np.mean(found) - mean:+.{digits}f}" if known else "-"
    return f"{mean_and_std(found, digits)} / {paper} / {difference}"


def _notes(table: published.PublishedTable, cells: Sequence[Cell], choice: Choice) -> list[str]:
    """What is not the paper's protocol, what is misprinted, what made the numbers."""
    notes = list(table.notes)
    for cell in cells:
        if cell.scores.misprint:
            where = f"{cell.row.method} on {cell.scores.dataset} {cell.scores.degrade}".rstrip()
            notes.append(f"Misprint: the average of {where}; {cell.scores.misprint}.")
    narrowed = [
        f"{key} {', '.join(map(str, chosen))} only"
        for key in ("rows", "data", "folds", "seeds")
        if (chosen := getattr(choice, key))
    ]
    if choice.recipe != "paper":
        narrowed.append(f"recipe {choice.recipe}, not the paper's")
    narrowed += [f"changed: {each}" for each in choice.overrides]
    if narrowed:
        notes.append("NOT the paper's protocol: " + "; ".join(narrowed) + ".")
    return [
        *notes,
        f"Standard deviations are those of the population. feedseg {feedseg.__version__}.",
    ]


def reproduce(
    name: str,
    choice: Choice,
    root: Path,
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    together: int = 1,
    plan_file: Path | None = None,
    only_collect: bool = False,
    output: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Make the runs of a table that are missing, print the table, write it to `output`.

    together: runs of a row that are one program. plan_file: only store the runs there, for the
    commands of `launch/`. output: folder for TABLE.md and TABLE.json; `root` without one.
    Returns 0, or 1 if a run failed.
    """
    table = published.table(name)
    cells = available(plan(table, choice, root), say)
    todo = tasks(cells, together)
    if plan_file:
        trials.write_plan(plan_file, todo)
        say(f"{plan_file}: {sum(map(len, todo))} runs in {len(todo)} processes")
        return 0
    failures = [] if only_collect else sweep.run_all(todo, jobs, say, devices)
    text = as_text(table, cells, choice)
    say(text)
    folder = output or root
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text_atomic(folder / f"{table.key}.md", text + "\n")
    files.write_json_atomic(folder / f"{table.key}.json", _record(table, cells, choice))
    for failure in failures:
        say(f"failed ({failure.code}): {failure.trial.config}: {failure.message}")
    return 1 if failures else 0


def _record(table: published.PublishedTable, cells: Sequence[Cell], choice: Choice) -> dict:
    """Numbers and where they come from."""
    runs = {}
    for trial in {trial for cell in cells for trial in cell.trials}:
        path = trial.workdir / "result.json"
        if path.exists():
            result = directory.read_json(path)
            keys = ("config_hash", "data_hash", "version", "jax", "device", "seconds", "best")
            runs[trial.config] = {key: result.get(key) for key in keys}
    return {
        "table": table.key,
        "choice": choice._asdict(),
        "rows": [
            {
                "method": cell.row.key,
                "dataset": cell.scores.dataset,
                "degrade": cell.scores.degrade,
                "metric": cell.scores.metric,
                "ours": values(cell),
                "published": cell.scores.values,
            }
            for cell in cells
        ],
        "runs": runs,
    }
