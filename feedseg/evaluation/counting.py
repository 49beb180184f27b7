"""Joint counts of two label images: pixels per pair of classes, and scores of enclosed cells."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common.dataset import VOID
from feedseg.evaluation import rand_scores
from feedseg.evaluation.pair_files import PredictionPair, read_truth
from feedseg.runtime.errors import UserError

BOUNDARY_KEYS = ("arand_error", "vi_splits", "vi_merges")


class PageCounts(NamedTuple):
    """The counts of one image."""

    name: str
    page: int  # from 1
    void: int  # pixels without truth
    cells: np.ndarray  # [n, 3] truth id, predicted id, pixels
    boundary: tuple[float, ...]  # BOUNDARY_KEYS
    sweep: np.ndarray  # [2, T, 3], see rand_scores.sweep


def count_file(
    pair: PredictionPair, names: tuple[str, ...], membrane: int | None, thresholds, swept: bool
) -> Iterator[PageCounts]:
    """The counts of the pages of a pair of files.

    names: class names, () if the number of classes is not known; membrane: class id for the
    comparison of cells, or None; swept: take the membrane's probabilities from their file.
    Raises UserError if the files do not fit each other or hold ids out of range.
    """
    from feedseg.io.images import read_label

    predicted, truth = read_label(pair.predicted, pair.how), read_truth(pair)
    if predicted.shape != truth.shape:
        raise UserError(
            f"{pair.predicted}: {_size(predicted)}, but its truth {pair.truth} is {_size(truth)}; "
            "both must agree"
        )
    _check_ids(pair.truth, truth, names, void=True)
    _check_ids(pair.predicted, predicted, names, void=False)
    probability = _membrane_probability(pair, predicted.shape, membrane) if swept else None
    for index in range(len(truth)):
        scores = ((), np.empty((2, 0, 3)))
        if membrane is not None:
            soft = (predicted[index] == membrane) if probability is None else probability[index]
            scores = _boundary(truth[index], predicted[index], membrane, soft, thresholds)
        void = int(np.sum(truth[index] == VOID))
        yield PageCounts(
            pair.name, index + 1, void, _cells(truth[index], predicted[index]), *scores
        )


def _check_ids(path: Path, labels: np.ndarray, names: tuple[str, ...], void: bool) -> None:
    """Ids must lie below the number of classes, or below 255 if that is not known."""
    ids = np.unique(labels)
    limit = len(names) or VOID
    wrong = ids[(ids >= limit) & ~((ids == VOID) & void)]
    if wrong.size:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if wrong.size > 5 else "")
        extra = f" (or {VOID} for ignored pixels)" if void else ""
        extra = "; a 0/255 mask? save it with ids 0 and 1" if wrong.tolist() == [VOID] else extra
        raise UserError(f"{path}: label values {shown}; expected class ids 0 to {limit - 1}{extra}")


def _membrane_probability(
    pair: PredictionPair, shape: tuple[int, ...], membrane: int
) -> np.ndarray:
    """Probability of the membrane class, [P, H, W]; UserError if the file does not fit."""
    from feedseg.io.images import read_array

    array = read_array(pair.probabilities)
    known = array.dtype.kind == "f" or array.dtype == np.uint8
    if array.shape[:3] != shape or membrane >= array.shape[3] or not known:
        raise UserError(
            f"{pair.probabilities}: {array.dtype} {array.shape}; expected probabilities of "
            f"{_size(np.empty(shape, bool))} with a channel per class; remove it or predict again"
        )
    return array[..., membrane] / (255 if array.dtype == np.uint8 else 1)


def _cells(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Pixels per pair of ids, int64 [n, 3]; void pixels are left out."""
    inside = truth != VOID
    codes = truth[inside].astype(np.int64) * 256 + predicted[inside]
    codes, counts = np.unique(codes, return_counts=True)
    return np.stack([codes // 256, codes % 256, counts], axis=1)


def _boundary(truth, predicted, membrane: int, soft: np.ndarray, thresholds):
    """BOUNDARY_KEYS of one page, and its Rand and information scores at every threshold."""
    valid = truth != VOID
    true_segments = rand_scores.segments(valid & (truth != membrane))
    segments = rand_scores.segments(predicted != membrane)
    error = rand_scores.adapted_rand(true_segments, segments)
    splits, merges = rand_scores.variation_of_information(true_segments, segments)
    scores = rand_scores.sweep(soft, truth == membrane, thresholds, valid=valid)
    return (error, splits, merges), scores


def _size(labels: np.ndarray) -> str:
    pages, height, width = labels.shape
    return f"{height}x{width} px (height x width)" + (f", {pages} pages" if pages > 1 else "")
