"""Console tables of the scores that `metrics.summary` gives."""

from collections.abc import Mapping, Sequence

from feedseg.evaluation.metrics import ABSENT_RULE
from feedseg.runtime.tables import aligned, percent, ruled


def console_table(summary: Mapping[str, float], class_names: Sequence[str]) -> str:
    """IoU and Dice per class and their means in percent, with the rule for absent classes.

    summary: as from `metrics.summary`; missing, None and NaN values are shown as `-`.
    """
    keys = [(name, f"iou/{name}", f"dice/{name}") for name in class_names]
    keys += [("mean", "miou", "mdice")]
    rows = [(name, *(percent(summary.get(key), 1) for key in pair)) for name, *pair in keys]
    accuracy = ("pixel accuracy", percent(summary.get("accuracy"), 1), "")
    *lines, mean, last = aligned([("class", "IoU, %", "Dice, %"), *rows, accuracy], least=7)
    head, rule, *lines = ruled(lines)
    shown = [mean, last] if "accuracy" in summary else [mean]
    return "\n".join([head, rule, *lines, rule, *shown, ABSENT_RULE])


def iou_table(title: str, rows: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> str:
    """IoU in percent, the mean and every class, a line per name. title: of the column of names."""
    cells = [[name, *iou_cells(scores, classes)] for name, scores in rows.items()]
    return "\n".join(ruled(aligned([[title, "mean IoU", *classes], *cells])))


def iou_cells(scores: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Mean and classes in percent; `-` where there is no score."""
    return [percent(scores.get(key)) for key in ("miou", *(f"iou/{name}" for name in classes))]
