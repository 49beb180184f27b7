"""`feedseg report RUNS`: tables, figures and tests of finished runs, from their directories alone.

Runs of one configuration over folds and seeds form one method. Only the qualitative figure runs
networks.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from feedseg.experiments.report import significance, tables
from feedseg.experiments.report.collect import Collection, collect, renamed
from feedseg.experiments.report.folder import ReportFolder
from feedseg.experiments.report.page import page, table_notes
from feedseg.experiments.report.provenance import origins, tools
from feedseg.runtime import console, escape
from feedseg.runtime.errors import UserError
from feedseg.runtime.output_lock import hold_folder


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
    say: Callable[[str], None] = console.say,
) -> int:
    """Write the report of all runs at or below the paths into a folder; returns 0.

    metric: `iou` | `dice`. by: `method`, or `run`: each run on its own. baseline: the method that
    the others are tested against, else all pairs are. images: number of test images shown in the
    qualitative figure. every_output: the other scored outputs count as methods too. rename: default
    name -> displayed name; the baseline goes by its displayed name.
    Raises UserError without a finished run, for an unknown method or an unsuitable folder,
    InUse while another report is written there.
    """
    if images < 0:
        raise UserError(f"--images {images}: at least 0")
    collection = renamed(collect(paths, by, every_output), rename or {})
    names = [method.name for method in collection.methods]
    if baseline and baseline not in names:
        raise UserError(f"--baseline {baseline!r}: no such method; there are: {', '.join(names)}")
    with hold_folder(output):
        folder = ReportFolder(output)
        key = f"m{metric}"
        tests = {
            "runs": significance.over_runs(collection.methods, key, baseline),
            "images": significance.over_images(collection.methods, key, baseline),
        }
        _write_tables(folder, collection, metric, tests)
        folder.write("index.html", page(folder, collection, metric, tests, images))
        options = {"metric": metric, "by": by, "baseline": baseline, "images": images}
        runs = tables.run_rows(collection)
        folder.finish(
            {**tools(), "options": options, "warnings": collection.warnings, "runs": runs}
        )
    say(tables.as_markdown(tables.score_table(collection, metric)))
    for line in collection.warnings:
        say(f"warning: {line}")
    say(f"report of {len(collection.runs)} run(s): {folder.path / 'index.html'}")
    return 0


def _write_tables(folder: ReportFolder, collection: Collection, metric: str, tests: dict) -> None:
    table = tables.score_table(collection, metric)
    warnings = [f"Warning: {line}" for line in collection.warnings]
    notes = [*table_notes(collection, metric), *warnings, *origins(collection)]
    lines = "\n".join(f"- {escape.markdown_line(line)}" for line in notes)
    folder.write("table.md", f"{tables.as_markdown(table)}\n{lines}\n")
    folder.write("table.tex", tables.as_latex(table, notes))
    folder.write("table.csv", tables.as_csv(tables.method_rows(collection, metric)))
    folder.write("runs.csv", tables.as_csv(tables.run_rows(collection)))
    rows = [{"over": over, **vars(test)} for over, results in tests.items() for test in results]
    if rows := [row for row in rows if row["pairs"]]:
        folder.write("tests.csv", tables.as_csv(rows))
