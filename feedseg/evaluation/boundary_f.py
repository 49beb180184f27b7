"""Boundary F-score: agreement of the class borders.

IoU counts areas, where thin and small classes weigh little; this score counts border pixels.
"""

from collections.abc import Sequence

import numpy as np

from feedseg.datasets.common.dataset import VOID
from feedseg.evaluation import metrics
from feedseg.evaluation.pair_files import PredictionPair, read_truth

TOLERANCE = 2.0  # px


def border(mask: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Pixels of a mask that touch another class, 4-connected, bool [H, W].

    The edge of the image and void pixels count as no other class. mask, void: bool [H, W].
    """
    from scipy import ndimage

    inside = ndimage.binary_erosion(mask | void, border_value=1)
    return mask & ~inside & ~void


def count(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Border pixels of one page by class, int64 [K, 4].

    Columns: predicted pixels within `tolerance` px (Euclidean) of the true border, all predicted
    ones, true pixels within `tolerance` px of the predicted border, all true ones.
    truth, predicted: class ids [H, W], in the truth 255 where it is unknown.
    """
    void = truth == VOID
    rows = []
    for index in range(num_classes):
        ours, true = border(predicted == index, void), border(truth == index, void)
        near_true, near_ours = _near(true, tolerance), _near(ours, tolerance)
        rows.append([(ours & near_true).sum(), ours.sum(), (true & near_ours).sum(), true.sum()])
    return np.array(rows, np.int64)


def _near(line: np.ndarray, tolerance: float) -> np.ndarray:
    from scipy import ndimage

    if not line.any():
        return line
    return ndimage.distance_transform_edt(~line) <= tolerance


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """F-score of every class, float64 [..., K].

        F = 2 P R / (P + R),   P = near predicted / all predicted,   R = near true / all true

    counts: of `count`, or sums of them. NaN if a class has no border in truth and prediction, 0 if
    in one of them only. Source: Csurka et al. (2013), "What is a good evaluation measure for
    semantic segmentation?", section 2.3. Deviation: the tolerance is in px, not a share of the
    image's diagonal, and the pixels of all images count alike.
    """
    near_true, predicted, near_ours, true = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    precision, recall = near_true / np.maximum(predicted, 1), near_ours / np.maximum(true, 1)
    score = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return np.where(predicted + true > 0, score, np.nan)


def count_pair(pair: PredictionPair, num_classes: int, tolerance: float) -> list[np.ndarray]:
    """`count` of every page of a pair of files that fit each other."""
    from feedseg.io.images import read_label

    pages = zip(read_truth(pair), read_label(pair.predicted, pair.how), strict=True)
    return [count(truth, predicted, num_classes, tolerance) for truth, predicted in pages]


def named(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """`boundary_f`, the mean over the classes with a border, and `boundary_f/<class>`."""
    scores = boundary_f(counts)
    by_class = {f"boundary_f/{n}": float(v) for n, v in zip(class_names, scores, strict=True)}
    return {"boundary_f": float(metrics.mean(scores)), **by_class}
