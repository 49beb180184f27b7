"""The console output of `feedseg evaluate`: scores of a folder, and of several compared."""

from collections.abc import Mapping, Sequence

import numpy as np

from feedseg.evaluation.tables import console_table, iou_cells
from feedseg.runtime.tables import aligned, known, percent, ruled

MOST_IMAGES = 20  # of which lines are shown


def score_text(result: Mapping) -> str:
    """Tables of the data set and of the images; result: from `folders.evaluate_folders`."""
    means, names = result["per_image"], result["class_names"]
    lines = [f"{len(result['images'])} images, one confusion matrix over all of them:"]
    lines.append(console_table(result["dataset"], names))
    lines.append(
        f"mean over images: IoU {100 * means['miou']:.1f} %, Dice {100 * means['mdice']:.1f} %, "
        f"accuracy {100 * means['accuracy']:.1f} %"
    )
    borders = result["contours"]
    by_class = ", ".join(f"{name} {percent(borders[f'boundary_f/{name}'])}" for name in names)
    lines.append(
        f"boundary F-score within {result['tolerance_px']:g} px, %: "
        f"mean {percent(borders['boundary_f'])}; {by_class}"
    )
    if result["boundary"]:
        lines.append(_cells(result))
    return "\n".join([*lines, "", image_table(result)])


def _cells(result: Mapping) -> str:
    source = "best threshold of the probabilities" if result["swept"] else "from the label images"
    return (
        "cells (mean over images): adapted Rand error {arand_error:.4f}, variation of "
        "information {vi:.3f} bit (splits {vi_splits:.3f}, merges {vi_merges:.3f})\n"
        "ISBI 2012, borders thinned, {source}: V_rand {v_rand:.4f}, V_info {v_info:.4f}".format(
            source=source, **result["boundary"]
        )
    )


def image_table(result: Mapping) -> str:
    """A line per image: IoU and boundary F in percent, with a membrane the scores of its cells.

    Of many images those with the lowest mean IoU.
    """
    names, rows = result["class_names"], result["images"]
    paged = any(row["page"] > 1 for row in rows)
    more = max(0, len(rows) - MOST_IMAGES)
    shown = sorted(rows, key=_worst_first)[:MOST_IMAGES] if more else rows
    cells = [
        [
            f"{row['image']}, page {row['page']}" if paged else row["image"],
            *iou_cells(row, names),
            percent(row["boundary_f"]),
            *_cell_scores(row, bool(result["boundary"])),
        ]
        for row in shown
    ]
    head = ["image", "mean IoU", *names, "boundary F", *_cell_heads(bool(result["boundary"]))]
    note = f"{more} more images have a higher mean IoU; --output FOLDER writes all"
    return "\n".join([*ruled(aligned([head, *cells])), *([note] if more else [])])


def _worst_first(row: Mapping) -> tuple[bool, float]:
    """Images without a score last."""
    return bool(np.isnan(row["miou"])), row["miou"]


def comparison_text(results: Mapping[str, Mapping], compared: Sequence[Mapping]) -> str:
    """A line per folder; compared: from `compare.compare_folders`, in the order of the results."""
    first = next(iter(results.values()))
    names, cells = first["class_names"], bool(first["boundary"])
    head = ["predictions", "mean IoU", "gain", "better on", *names, "boundary F"]
    rows = []
    for (name, result), row in zip(results.items(), compared, strict=True):
        miou, *classes = iou_cells(result["dataset"], names)
        gain = [percent(row["gain"], sign="+"), f"{row['better_on']} of {len(result['images'])}"]
        border = percent(result["contours"]["boundary_f"])
        last = [*classes, border, *_cell_scores(result["boundary"], cells)]
        rows.append([name, miou, *(gain if rows else ["", ""]), *last])
    table = ruled(aligned([[*head, *_cell_heads(cells)], *rows]))
    title = f"{len(first['images'])} images; IoU and boundary F in %, gain over the first"
    return "\n".join([title, *table])


def _cell_heads(shown: bool) -> list[str]:
    return ["V_rand", "V_info", "ARAND", "VI, bit"] if shown else []


def _cell_scores(scores: Mapping[str, float], shown: bool) -> list[str]:
    if not shown:
        return []
    vi = scores.get("vi", scores["vi_splits"] + scores["vi_merges"])
    values = (scores["v_rand"], scores["v_info"], scores["arand_error"], vi)
    return [f"{value:.4f}" if known([value]) else "-" for value in values]
