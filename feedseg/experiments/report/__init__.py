"""`feedseg report RUNS`: tables, figures and tests of finished runs, from their directories alone.

Runs of one configuration over folds and seeds are one method. No network is computed but for the
qualitative figure.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from feedseg.experiments.report import significance, tables
from feedseg.experiments.report.collect import Collection, collect, renamed
from feedseg.experiments.report.folder import ReportFolder
from feedseg.experiments.report.page import page, table_notes
from feedseg.experiments.report.provenance import origins, tools
from feedseg.runtime.errors import UserError


def report(
    paths: Sequence[Path],
    output: Path,
    *,
    metric: str = "iou",
    by: str = "method",
    baseline: str = "",
    images: int = 3,
    every_output: bool = False,
    rename: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Write the report of all runs at or below the paths into a folder; returns 0.

    metric: `iou` | `dice`. by: `method`, or `run`: each run on its own. baseline: the method that
    the others are tested against, else all pairs are. images: of the qualitative figure.
    every_output: scored outputs other than the final one count as methods too. rename: other names
    by the names that methods have without it; the baseline goes by its new name.
    Raises UserError without a finished run, for an unknown method or an unfit folder.
    """
    if images < 0:
        raise UserError(f"--images {images}: at least 0")
    found = renamed(collect(paths, by, every_output), rename or {})
    names = [method.name for method in found.methods]
    if baseline and baseline not in names:
        raise UserError(f"--baseline {baseline!r}: no such method; there are: {', '.join(names)}")
    folder = ReportFolder(output)
    key = f"m{metric}"
    tests = {
        "runs": significance.over_runs(found.methods, key, baseline),
        "images": significance.over_images(found.methods, key, baseline),
    }
    _write_tables(folder, found, metric, tests)
    folder.write("index.html", page(folder, found, metric, tests, images))
    options = {"metric": metric, "by": by, "baseline": baseline, "images": images}
    runs = tables.run_rows(found)
    folder.finish({**tools(), "options": options, "warnings": found.warnings, "runs": runs})
    say(tables.as_markdown(tables.score_table(found, metric)))
    for line in found.warnings:
        say(f"warning: {line}")
    say(f"report of {len(found.runs)} run(s): {folder.path / 'index.html'}")
    return 0


def _write_tables(folder: ReportFolder, found: Collection, metric: str, tests: dict) -> None:
    table = tables.score_table(found, metric)
    warnings = [f"Warning: {line}" for line in found.warnings]
    notes = [*table_notes(found, metric), *warnings, *origins(found)]
    lines = "\n".join(f"- {line}" for line in notes)
    folder.write("table.md", f"{tables.as_markdown(table)}\n{lines}\n")
    folder.write("table.tex", tables.as_latex(table, notes))
    folder.write("table.csv", tables.as_csv(tables.method_rows(found, metric)))
    folder.write("runs.csv", tables.as_csv(tables.run_rows(found)))
    rows = [{"over": over, **vars(each)} for over, list_ in tests.items() for each in list_]
    if rows := [row for row in rows if row["pairs"]]:
        folder.write("tests.csv", tables.as_csv(rows))
