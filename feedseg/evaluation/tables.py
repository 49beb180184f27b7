"""Scores as text: the table of one run, a row of Markdown, a mean with its spread."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from feedseg.evaluation.metrics import ABSENT_RULE


def console_table(summary: Mapping[str, float], class_names: Sequence[str]) -> str:
    """IoU and Dice per class and their means in percent, aligned, with the absent-class rule.

    summary: as from `evaluation.metrics.summary`; missing, None and NaN values are shown as `-`.
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


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are numbers: neither None nor NaN."""
    return [value for value in values if value is not None and not math.isnan(value)]


def mean_and_std(values: Iterable[float | None], digits: int = 2) -> str:
    """`mean ± population standard deviation`; one value alone; `-` of none.

    values: None and NaN are left out.
    """
    numbers = known(values)
    if not numbers:
        return "-"
    spread = f" ± {np.std(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.{digits}f}{spread}"


def _percent(value: float | None) -> str:
    return f"{100 * value:.1f}" if known([value]) else "-"
