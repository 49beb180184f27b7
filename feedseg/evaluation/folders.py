"""Scores of a folder of label images, made by any tool, against a folder with the truth.

Files are paired by name, never by order. Every page of a file is an image. The scores of the data
set come from one confusion matrix over all images; those per image are averaged over the images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common.dataset import VOID
from feedseg.evaluation import boundary_f, metrics, rand_scores
from feedseg.evaluation.counting import BOUNDARY_KEYS, PageCounts, count_file
from feedseg.evaluation.pair_files import PredictionPair, ignored, pair_files
from feedseg.evaluation.score_files import write_scores
from feedseg.evaluation.score_text import score_text
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.runtime import console
from feedseg.runtime.errors import UserError

MOST_INFERRED = 64  # more classes than this are taken for instance ids


class FolderCounts(NamedTuple):
    """The counts of a folder. swept: the membrane's probabilities were used."""

    pairs: list[PredictionPair]
    pages: list[PageCounts]
    thresholds: tuple[float, ...]  # of the membrane; () without one
    swept: bool


def evaluate_folders(
    pred: Path,
    truth: Path,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    membrane: str | int | None = None,
    tolerance: float = boundary_f.TOLERANCE,
    interpret: str = "auto",
    fill_missing: bool = False,
    output: Path | None = None,
) -> dict:
    """Score label images and print the table of scores.

    pred, truth: folders, or two files; labels are class ids 0, 1, ... and in the truth 255 for
    ignored pixels, or the label that its dataset.json calls `ignore`. num_classes: taken from
    class_names, or else from the highest id.
    membrane: name or id of the class that separates cells; given one, the connected components
    of everything else are compared too (adapted Rand error, variation of information, ISBI 2012
    scores: swept over thresholds where all predictions have `<name>_probabilities` beside their
    labels, else from the labels as they are).
    tolerance: px, how far a border may lie from the true one (`boundary_f.boundary_f`).
    interpret, fill_missing: how label files are read (`feedseg.io.reading.ReadOptions`).
    output: folder for `scores.csv` (a line per image) and `scores.json`.
    Returns `dataset`, `per_image` (as `metrics.summary`), `contours` (boundary F-scores),
    `boundary` (of the membrane), `images` (a mapping per image), `confusion`, `class_names`,
    `rule`, `tolerance_px`, `swept`.
    Raises UserError naming the file for unpaired files, differing sizes and ids out of range,
    SaveFailed if `output` cannot be written.
    """
    given = names_given(num_classes, class_names)
    how = ReadOptions(interpret=interpret, fill_missing=fill_missing).checked()
    (result,) = score_folders([Path(pred)], Path(truth), given, membrane, tolerance, how)
    console.say(score_text(result))
    if output is not None:
        write_scores(Path(output), {"scores.csv": result["images"]}, result)
    return result


def score_folders(
    preds: Sequence[Path],
    truth: Path,
    names: tuple[str, ...],
    membrane: str | int | None,
    tolerance: float,
    how: ReadOptions = AS_STATED,
) -> list[dict]:
    """The scores of every folder by the same classes; see `evaluate_folders`.

    names: of the classes; () takes as many as the highest id of all folders needs.
    """
    if not tolerance >= 0:
        raise UserError(f"tolerance {tolerance}: must not be negative")
    index = None if membrane is None else _class_id(membrane, names)
    folders = [_count(pred, truth, names, index, how) for pred in preds]
    names = names or _inferred_names([page for folder in folders for page in folder.pages])
    if index is not None:
        _class_id(index, names)  # the names may have become known only now
    return [_scores(folder, names, tolerance) for folder in folders]


def _count(
    pred: Path, truth: Path, names: tuple[str, ...], membrane: int | None, how: ReadOptions
) -> FolderCounts:
    ignore = ignored(truth)
    pairs = [pair._replace(ignore=ignore) for pair in pair_files(pred, truth, how)]
    swept = membrane is not None and all(pair.probabilities for pair in pairs)
    thresholds = rand_scores.THRESHOLDS if swept else (0.5,)
    pages = []
    for pair in _with_progress(pairs, "scoring"):
        pages += count_file(pair, names, membrane, thresholds, swept)
    _refuse_masks(pages, truth)
    return FolderCounts(pairs, pages, thresholds if membrane is not None else (), swept)


def names_given(num_classes: int | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Class names as given by the caller; () if unknown."""
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


def _refuse_masks(pages: Sequence[PageCounts], truth: Path) -> None:
    """0/255 masks would count as class 0 and unknown pixels, and score 100 %."""
    ids = np.unique(np.concatenate([page.cells[:, 0] for page in pages]))
    if ids.size == 0:
        raise UserError(f"{truth}: every pixel is {VOID}, which is ignored; nothing to score")
    if ids.tolist() == [0] and any(page.void for page in pages):
        raise UserError(
            f"{truth}: holds only 0 and {VOID}, a mask instead of class ids ({VOID} is ignored); "
            "save it with ids 0 and 1"
        )


def _inferred_names(pages: Sequence[PageCounts]) -> tuple[str, ...]:
    """`class 0`, ... up to the highest id of truth or prediction."""
    ids = np.concatenate([page.cells[:, :2].ravel() for page in pages])
    if ids.max() >= MOST_INFERRED:
        raise UserError(
            f"label values up to {ids.max()} look like instance ids, not class ids; give "
            "the number of classes or their names if they are classes"
        )
    return tuple(f"class {index}" for index in range(ids.max() + 1))


def _matrix(page: PageCounts, num_classes: int) -> np.ndarray:
    matrix = np.zeros((num_classes, num_classes), np.int64)
    matrix[page.cells[:, 0], page.cells[:, 1]] = page.cells[:, 2]
    return matrix


def _scores(folder: FolderCounts, names: tuple[str, ...], tolerance: float) -> dict:
    pages, thresholds = folder.pages, folder.thresholds
    matrices = np.stack([_matrix(page, len(names)) for page in pages])
    rows = []
    for page, matrix in zip(pages, matrices, strict=True):
        row = {"image": page.name, "page": page.page, "pixels": int(matrix.sum())}
        rows.append(row | metrics.summary(matrix, names))
    borders = _borders(folder.pairs, len(names), tolerance)
    for row, counts in zip(rows, borders, strict=True):
        row |= boundary_f.named(counts, names)
    return {
        "dataset": metrics.summary(matrices.sum(0), names),
        "per_image": metrics.per_image(matrices, names),
        "contours": boundary_f.named(borders.sum(0), names),
        "boundary": _add_boundary(rows, pages, thresholds) if thresholds else {},
        "images": rows,
        "confusion": matrices.sum(0).tolist(),
        "class_names": list(names),
        "rule": metrics.ABSENT_RULE,
        "tolerance_px": tolerance,
        "swept": folder.swept,
    }


def _borders(pairs: Sequence[PredictionPair], num_classes: int, tolerance: float) -> np.ndarray:
    """Border pixels of every page, [P, K, 4]; int64."""
    counts = [
        page
        for pair in _with_progress(pairs, "borders")
        for page in boundary_f.count_pair(pair, num_classes, tolerance)
    ]
    return np.array(counts)


def _add_boundary(rows: list[dict], pages: Sequence[PageCounts], thresholds) -> dict:
    """Means over the images; adds each image's values to its row, at the common threshold."""
    sweeps = np.stack([page.sweep for page in pages])
    best = rand_scores.at_best_threshold(sweeps, thresholds)
    rand, info = (
        list(thresholds).index(best[f"{name}_threshold"]) for name in ("v_rand", "v_info")
    )
    for row, page in zip(rows, pages, strict=True):
        row |= dict(zip(BOUNDARY_KEYS, page.boundary, strict=True))
        row |= {"v_rand": float(page.sweep[0, rand, 0]), "v_info": float(page.sweep[1, info, 0])}
    means = {key: float(metrics.mean([row[key] for row in rows])) for key in BOUNDARY_KEYS}
    return means | {"vi": means["vi_splits"] + means["vi_merges"]} | best


def _with_progress(pairs: Sequence[PredictionPair], title: str):
    from tqdm import tqdm

    return tqdm(pairs, desc=title, unit="file", disable=None)
