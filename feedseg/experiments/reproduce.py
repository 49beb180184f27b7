"""`feedseg reproduce TABLE`: makes the runs behind a published table and compares the numbers.

Folds and seeds are those of the paper; the table states what was left out or changed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from feedseg import datasets
from feedseg.experiments import published, sweep, trials
from feedseg.experiments.comparison import as_text, record
from feedseg.experiments.table_runs import Choice, TableCell, plan, tasks
from feedseg.runs import config as configs
from feedseg.runtime import console, files
from feedseg.runtime.errors import UserError


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
    say: Callable[[str], None] = console.say,
) -> int:
    """Make the missing runs of a table, print the comparison, write it to `output`.

    together: number of runs of a row in one program. plan_file: only store the runs there, for the
    commands of `launch/`. output: folder for TABLE.md and TABLE.json, by default `root`.
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
    files.write_json_atomic(folder / f"{table.key}.json", record(table, cells, choice))
    for failure in failures:
        say(f"failed ({failure.code}): {failure.trial.config}: {failure.message}")
    return 1 if failures else 0


def available(cells: Sequence[TableCell], say: Callable[[str], None]) -> list[TableCell]:
    """The cells whose data are present. Raises UserError if there is none."""
    problems: dict[str, UserError | None] = {}
    for cell in cells:
        if cell.scores.dataset not in problems:
            problems[cell.scores.dataset] = _missing_data(cell)
    for name, problem in problems.items():
        if problem:
            say(f"left out: {name}: {problem.args[0]}")
    present = [cell for cell in cells if not problems[cell.scores.dataset]]
    if not present:
        raise next(filter(None, problems.values()))
    return present


def _missing_data(cell: TableCell) -> UserError | None:
    """Why the data of a cell cannot be used; None if they can."""
    config, _ = configs.parse_flags(cell.trials[0].arguments())
    try:
        datasets.find_root(config.data.name, config.data_dir)
    except UserError as error:
        return error
    return None
