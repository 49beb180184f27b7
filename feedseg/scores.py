"""Scores a folder of label images, made by any tool, against a folder with the truth.

Files are paired by name, never by order. Every page of a file is an image. The scores of the data
set come from one confusion matrix over all images; those per image are averaged over the images.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg import boundary_metrics as boundary
from feedseg import metrics
from feedseg.atomic import write_json_atomic, write_text_atomic
from feedseg.counting import BOUNDARY_KEYS, Page, count_file
from feedseg.datasets.base import VOID
from feedseg.errors import SaveFailed, UserError
from feedseg.label_pairs import Pair, pair_files
from feedseg.text_table import console_table

MOST_INFERRED = 64  # more classes than that are taken for object numbers


def evaluate_folders(
    pred: Path,
    truth: Path,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    membrane: str | int | None = None,
    output: Path | None = None,
) -> dict:
    """Compare label images and print the table of scores.

    pred, truth: folders, or two files; labels are class ids 0, 1, ... and in the truth 255 for
    pixels that do not count. num_classes: taken from class_names, or else from the highest id.
    membrane: name or id of the class that separates cells; given one, the connected components
    of everything else are compared too (adapted Rand error, variation of information, ISBI 2012
    scores: swept over thresholds where all predictions have `<name>_probabilities` beside their
    labels, else from the labels as they are).
    output: folder for `scores.csv` (a line per image) and `scores.json`.
    Returns `dataset`, `per_image` (as `metrics.summary`), `boundary`, `images` (a mapping per
    image), `confusion`, `class_names`, `rule`.
    Raises UserError naming the file for unpaired files, differing sizes and ids out of range,
    SaveFailed if `output` cannot be written.
    """
    names = _names_given(num_classes, class_names)
    membrane_id = None if membrane is None else _class_id(membrane, names)
    pairs = pair_files(Path(pred), Path(truth))
    swept = membrane_id is not None and all(pair.probabilities for pair in pairs)
    thresholds = boundary.THRESHOLDS if swept else (0.5,)
    pages = []
    for pair in _with_progress(pairs):
        pages += count_file(pair, names, membrane_id, thresholds, swept)
    _refuse_masks(pages, truth)
    names = names or _names_found(pages)
    if membrane_id is not None:
        _class_id(membrane_id, names)  # the names may have become known only now
    result = _scores(pages, names, thresholds if membrane_id is not None else ())
    print(_text(result, swept))
    if output is not None:
        _write(Path(output), result)
    return result


def _names_given(num_classes: int | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Class names as far as the caller knows them; () if nothing is known."""
    if class_names and num_classes and len(class_names) != num_classes:
        raise UserError(f"{len(class_names)} class names for {num_classes} classes; give as many")
    if num_classes is not None and not 1 <= num_classes <= VOID:
        raise UserError(f"num_classes={num_classes}: must be from 1 to {VOID}")
    if class_names:
        return tuple(class_names)
    return tuple(f"class {index}" for index in range(num_classes or 0))


def _class_id(membrane: str | int, names: tuple[str, ...]) -> int:
    if isinstance(membrane, str) and membrane in names:
        return names.index(membrane)
    try:
        index = int(membrane)
    except ValueError:
        known = ", ".join(names) or "none, give class names or the class id"
        raise UserError(f"membrane class {membrane!r} is unknown; classes: {known}") from None
    if index < 0 or (names and index >= len(names)):
        raise UserError(f"membrane class {index}: there are {len(names)} classes, ids from 0 on")
    return index


def _refuse_masks(pages: Sequence[Page], truth: Path) -> None:
    """0/255 masks would count as class 0 and unknown pixels, and score 100 %."""
    ids = np.unique(np.concatenate([page.cells[:, 0] for page in pages]))
    if ids.size == 0:
        raise UserError(f"{truth}: every pixel is {VOID}, 'does not count'; nothing to score")
    if ids.tolist() == [0] and any(page.void for page in pages):
        raise UserError(
            f"{truth}: holds only 0 and {VOID}, a mask and not class ids ({VOID} means 'does not "
            "count'); save it with ids 0 and 1"
        )


def _names_found(pages: Sequence[Page]) -> tuple[str, ...]:
    """`class 0`, ... up to the highest id of truth or prediction."""
    ids = np.concatenate([page.cells[:, :2].ravel() for page in pages])
    if ids.max() >= MOST_INFERRED:
        raise UserError(
            f"label values up to {ids.max()} look like object numbers, not class ids; give "
            "the number of classes or their names if they are classes"
        )
    return tuple(f"class {index}" for index in range(ids.max() + 1))


def _matrix(page: Page, num_classes: int) -> np.ndarray:
    matrix = np.zeros((num_classes, num_classes), np.int64)
    matrix[page.cells[:, 0], page.cells[:, 1]] = page.cells[:, 2]
    return matrix


def _scores(pages: Sequence[Page], names: tuple[str, ...], thresholds) -> dict:
    matrices = np.stack([_matrix(page, len(names)) for page in pages])
    rows = []
    for page, matrix in zip(pages, matrices, strict=True):
        row = {"image": page.name, "page": page.page, "pixels": int(matrix.sum())}
        rows.append(row | metrics.summary(matrix, names))
    return {
        "dataset": metrics.summary(matrices.sum(0), names),
        "per_image": metrics.per_image(matrices, names),
        "boundary": _add_boundary(rows, pages, thresholds) if thresholds else {},
        "images": rows,
        "confusion": matrices.sum(0).tolist(),
        "class_names": list(names),
        "rule": metrics.ABSENT_RULE,
    }


def _add_boundary(rows: list[dict], pages: Sequence[Page], thresholds) -> dict:
    """Means over the images; adds each image's values to its row, at the common threshold."""
    sweeps = np.stack([page.sweep for page in pages])
    best = boundary.at_best_threshold(sweeps, thresholds)
    at = [list(thresholds).index(best[f"{name}_threshold"]) for name in ("v_rand", "v_info")]
    for row, page in zip(rows, pages, strict=True):
        row |= dict(zip(BOUNDARY_KEYS, page.boundary, strict=True))
        row |= {"v_rand": float(page.sweep[0, at[0], 0]), "v_info": float(page.sweep[1, at[1], 0])}
    means = {key: float(metrics.mean([row[key] for row in rows])) for key in BOUNDARY_KEYS}
    return means | {"vi": means["vi_splits"] + means["vi_merges"]} | best


def _text(result: dict, swept: bool) -> str:
    """What the console shows."""
    each, names = result["per_image"], result["class_names"]
    lines = [f"{len(result['images'])} images, one confusion matrix over all of them:"]
    lines.append(console_table(result["dataset"], names))
    lines.append(
        f"mean over images: IoU {100 * each['miou']:.1f} %, Dice {100 * each['mdice']:.1f} %, "
        f"accuracy {100 * each['accuracy']:.1f} %"
    )
    if scores := result["boundary"]:
        how = "best threshold of the probabilities" if swept else "from the label images"
        lines.append(
            "cells (mean over images): adapted Rand error {arand_error:.4f}, variation of "
            "information {vi:.3f} bit (splits {vi_splits:.3f}, merges {vi_merges:.3f})\n"
            "ISBI 2012, borders thinned, {how}: V_rand {v_rand:.4f}, V_info {v_info:.4f}".format(
                how=how, **scores
            )
        )
    return "\n".join(lines)


def _write(folder: Path, result: dict) -> None:
    """scores.csv and scores.json in `folder`, which is made if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveFailed(f"{folder}: cannot be made ({error.strerror}); choose another") from None
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(result["images"][0]))
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
        for row in result["images"]
    )
    write_text_atomic(folder / "scores.csv", stream.getvalue().replace("\r\n", "\n"))
    write_json_atomic(folder / "scores.json", result)


def _with_progress(pairs: Sequence[Pair]):
    from tqdm import tqdm

    return tqdm(pairs, desc="scoring", unit="file", disable=None)
