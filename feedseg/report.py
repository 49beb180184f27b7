"""Tables of results: one run on the console, several runs side by side as Markdown.

`python -m feedseg.report RUN [RUN ...]` prints the comparison; it reads each run's `result.json`
and nothing else.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.errors import UserError
from feedseg.metrics import ABSENT_RULE


def console_table(summary: Mapping[str, float], class_names: Sequence[str]) -> str:
    """IoU and Dice per class and their means in percent, aligned, with the absent-class rule.

    summary: as from `feedseg.metrics.summary`; missing, None and NaN values are shown as `-`.
    """
    rows = [(name, summary.get(f"iou/{name}"), summary.get(f"dice/{name}")) for name in class_names]
    mean = ("mean", summary.get("miou"), summary.get("mdice"))
    width = max(len(name) for name in (*class_names, "class", "pixel accuracy"))
    line = "-" * (width + 18)
    lines = [f"{'class':<{width}}{'IoU, %':>9}{'Dice, %':>9}", line]
    lines += [f"{name:<{width}}{_percent(i):>9}{_percent(d):>9}" for name, i, d in rows]
    lines += [line, f"{mean[0]:<{width}}{_percent(mean[1]):>9}{_percent(mean[2]):>9}"]
    if "accuracy" in summary:
        lines.append(f"{'pixel accuracy':<{width}}{_percent(summary['accuracy']):>9}")
    return "\n".join([*lines, ABSENT_RULE])


def comparison(run_dirs: Sequence[Path], every_output: bool = False) -> str:
    """Runs side by side as a Markdown table: mean IoU and IoU per class, in percent.

    One line per run, from its `result.json`; the best value of a column is bold. `every_output`
    adds lines for the other outputs that were scored (`first`, `members/0`, ...). Below the table
    it says which runs were not finished, or were not scored on the same data.
    run_dirs: run directories, or `result.json` files themselves.
    Raises UserError if one has no readable result.
    """
    results = [_read_result(Path(run)) for run in run_dirs]
    classes = list(dict.fromkeys(name for result in results for name in result["class_names"]))
    lines = []
    for name, result in zip(_names(results), results, strict=True):
        outputs = result["metrics"] if every_output else ["final"]
        for output in outputs:
            label = name if output == "final" else f"{name}: {output}"
            lines.append((label, result["metrics"][output], result))
    keys = ["miou", *(f"iou/{name}" for name in classes)]
    best = {key: _highest([scores.get(key) for _, scores, _ in lines]) for key in keys}
    head = ["run", "mean IoU", *classes, "time", "device"]
    table = [markdown_row(head), markdown_row(["---", *["---:"] * (len(head) - 2), "---"])]
    for label, scores, result in lines:
        cells = [_bold(scores.get(key), best[key] if len(lines) > 1 else None) for key in keys]
        table.append(
            markdown_row(
                [label, *cells, _duration(result.get("seconds")), result.get("device", "")]
            )
        )
    notes = [ABSENT_RULE.replace("(-)", "(–)"), *_notes(results)]
    return "\n".join(["IoU in percent.", "", *table, "", *notes])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m feedseg.report`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m feedseg.report",
        description="Print the scores of finished runs side by side as a Markdown table.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--every-output", action="store_true", help="also the outputs before the final one"
    )
    options = parser.parse_args(arguments)
    try:
        print(comparison(options.runs, options.every_output))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _read_result(run: Path) -> dict:
    """The content of a run's result.json; UserError if it is missing, damaged or incomplete."""
    path = run / "result.json" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"{path}: not there; give the directory of a run that has finished")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        usable = "miou" in result["metrics"]["final"] and len(result["class_names"]) > 0
    except (ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise UserError(f"{path}: holds no scores of a run; run its training command again")
    return {**result, "folder": path.parent}


def _names(results: Sequence[dict]) -> list[str]:
    """`experiment/run_name` of each run, its folder where two share that name or it is missing."""
    names = []
    for result in results:
        parts = [result.get("experiment"), result.get("run_name")]
        names.append("/".join(part for part in parts if part) or str(result["folder"]))
    return [
        str(result["folder"]) if names.count(name) > 1 else name
        for name, result in zip(names, results, strict=True)
    ]


def _notes(results: Sequence[dict]) -> list[str]:
    notes = []
    if open_runs := [
        n for n, r in zip(_names(results), results, strict=True) if not r.get("complete")
    ]:
        notes.append(f"Not finished: {', '.join(open_runs)}.")
    if len({result.get("data_hash") for result in results}) > 1:
        notes.append(
            "These runs used different data (or a different split): not comparable as such."
        )
    if len({result.get("version") for result in results}) > 1:
        notes.append("These runs were made by different versions of the code.")
    return notes


def _known(value) -> bool:
    return value is not None and not math.isnan(value)


def _percent(value: float | None) -> str:
    return f"{100 * value:.1f}" if _known(value) else "-"


def _highest(values) -> float | None:
    return max((value for value in values if _known(value)), default=None)


def _bold(value: float | None, best: float | None) -> str:
    if not _known(value):
        return "–"
    same = best is not None and _percent(value) == _percent(best)
    return f"**{_percent(value)}**" if same else _percent(value)


def _duration(seconds: float | None) -> str:
    if not _known(seconds):
        return "–"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
