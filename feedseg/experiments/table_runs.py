"""The runs behind a published table: all of them, the chosen ones, and the tasks that make them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from feedseg.experiments import published, trials
from feedseg.experiments.trials import Task, Trial
from feedseg.runs import shipped
from feedseg.runtime.errors import UserError


class Choice(NamedTuple):
    """The part of a table to run; empty: all of it. overrides: KEY=VALUE for all configurations."""

    rows: tuple[str, ...] = ()
    data: tuple[str, ...] = ()  # `irpe`, or with its degradation, `isbi2012-noise`
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    recipe: str = "paper"
    overrides: tuple[str, ...] = ()


class TableCell(NamedTuple):
    """A row of a table on one data set, with its runs."""

    row: published.TableRow
    scores: published.Scores
    output: str
    trials: tuple[Trial, ...]
    full: int  # number of runs in the paper's protocol

    @property
    def block(self) -> tuple[str, str, str]:
        """Data set, degradation and metric: cells that share them stand in one table."""
        return self.scores.dataset, self.scores.degrade, self.scores.metric


def plan(table: published.PublishedTable, choice: Choice, root: Path) -> list[TableCell]:
    """The runs of every chosen row. Raises UserError listing the alternatives to a wrong choice."""
    data = [name for row in table.rows for scores in row.scores for name in _names(scores)]
    _require_known(table, "row", choice.rows, [row.key for row in table.rows])
    _require_known(table, "data", choice.data, data)
    return [
        _cell(table, row, scores, choice, root)
        for row in table.rows
        if not choice.rows or row.key in choice.rows
        for scores in row.scores
        if not choice.data or set(choice.data) & set(_names(scores))
    ]


def _cell(table, row: published.TableRow, scores: published.Scores, choice, root) -> TableCell:
    configs = _method_configs()
    method, folds = configs.METHODS[row.key], table.folds[scores.dataset]
    shipped.require(method.config.partition(":")[0])
    target = (row.key, table.arguments, scores.dataset, scores.degrade)
    runs = tuple(
        trials.placed(
            configs.config_string(*target, fold, seed, choice.recipe),
            (*method.overrides, *choice.overrides),
            root,
        )
        for fold in _numbers("folds", choice.folds, folds)
        for seed in _numbers("seeds", choice.seeds, table.seeds)
    )
    return TableCell(row, scores, method.output, runs, folds * table.seeds)


def _require_known(table, kind: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [key for key in chosen if key not in known]:
        raise UserError(
            f"{table.key} has no {kind} {unknown[0]!r}; choose from: "
            f"{', '.join(dict.fromkeys(known))}"
        )


def _names(scores: published.Scores) -> list[str]:
    """How a data set may be called: by its name, and with its degradation."""
    return [scores.dataset] + [f"{scores.dataset}-{scores.degrade}"] * bool(scores.degrade)


def _method_configs():
    """The methods' configurations."""
    shipped.importable()
    from configs import tables

    return tables


def _numbers(key: str, chosen: Sequence[int], count: int) -> Sequence[int]:
    if wrong := [number for number in chosen if not 0 <= number < count]:
        raise UserError(f"--{key} {wrong[0]}: the protocol has {count}, counted from 0")
    return chosen or range(count)


def tasks(cells: Sequence[TableCell], together: int) -> list[Task]:
    """Tasks of up to `together` runs of a row each. A run that two rows share is made once."""
    result: list[Task] = []
    planned: set[Trial] = set()
    for cell in cells:
        new = [trial for trial in cell.trials if trial not in planned]
        planned.update(new)
        result += [tuple(new[i : i + together]) for i in range(0, len(new), together)]
    return result
