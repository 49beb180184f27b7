"""Tables of scores for the console: aligned columns, a line per model, folder or image."""

from collections.abc import Mapping, Sequence

from feedseg.evaluation.tables import known


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns; the first is aligned left, the others right."""
    lines = [tuple(map(str, line)) for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            [first.ljust(widths[0]), *(w.rjust(n) for w, n in zip(rest, widths[1:], strict=True))]
        ).rstrip()
        for first, *rest in lines
    ]
    return "\n".join([text[0], "-" * (sum(widths) + 2 * len(widths) - 2), *text[1:]])


def iou_table(title: str, rows: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> str:
    """IoU in percent, the mean and every class; rows: scores by name, as `metrics.summary` gives.

    title: of the column of names.
    """
    cells = [[name, *iou_cells(scores, classes)] for name, scores in rows.items()]
    return aligned([title, "mean IoU", *classes], cells)


def iou_cells(scores: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Mean and classes in percent; `-` where there is no score."""
    return [percent(scores.get(key)) for key in ("miou", *(f"iou/{name}" for name in classes))]


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in percent; `-` for None and NaN."""
    return f"{100 * value:{'+' if signed else ''}.2f}" if known([value]) else "-"
