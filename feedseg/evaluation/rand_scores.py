"""Rand and information scores: a membrane segmentation judged by the cells it separates.

IoU counts pixels; these scores count merged and split cells, which a single wrong pixel can cause.
All functions take one page of segments, integers [H, W] with 0 for membrane ("no segment"), as
`segments` makes them, and restrict the comparison to the foreground: pixels whose *truth* is 0
are left out. `isbi2012` is the scoring of the ISBI 2012 EM challenge.
"""

from collections.abc import Sequence

import numpy as np

# Interior thresholds of the challenge's published script: 0 to 1 in steps of 0.1.
THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(11))


def segments(interior: np.ndarray) -> np.ndarray:
    """Connected components of the cell interior, int32 [H, W], 0 outside; 4-connected.

    interior: bool [H, W], True where there is no membrane.
    """
    from scipy import ndimage

    return ndimage.label(interior)[0].astype(np.int32)


def thin_borders(labels: np.ndarray) -> np.ndarray:
    """Segments grown into the membrane until lines one pixel wide remain between them.

    labels: int [H, W] as from `segments`; without any segment it is returned as it is.
    The growth is a watershed on a flat landscape (4-connected, ties by the order of the queue).
    """
    from skimage.segmentation import watershed

    if not labels.any():
        return labels
    flat = np.zeros(labels.shape, np.uint8)
    return watershed(flat, markers=labels, connectivity=1, watershed_line=True)


def rand_scores(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """Foreground-restricted Rand score: (F, precision, recall), each in [0, 1].

    With p_ij the fraction of the foreground pixels in true segment i and predicted segment j,
    t_i and s_j its sums over j and i:

        precision (merge score) = sum p_ij^2 / sum s_j^2
        recall    (split score) = sum p_ij^2 / sum t_i^2
        F = 2 / (1 / precision + 1 / recall)

    A foreground pixel predicted as 0 is a segment of its own.
    truth, predicted: int [H, W]. All NaN if the truth has no foreground; raises ValueError if
    the shapes differ.
    Source: Arganda-Carreras et al. (2015), Frontiers in Neuroanatomy 9:142, V^Rand.
    """
    joint, true_sizes, sizes, alone, total = _overlaps(truth, predicted)
    if total == 0:
        return (np.nan,) * 3
    together = np.sum(joint**2) + alone
    precision = together / (np.sum(sizes**2) + alone)
    recall = together / np.sum(true_sizes**2)
    return _harmonic(precision, recall), float(precision), float(recall)


def information_scores(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """Foreground-restricted information score: (F, precision, recall), each in [0, 1].

    With the mutual information I of true (T) and predicted (S) segments and their entropies H:

        precision (merge score) = I(S, T) / H(T)
        recall    (split score) = I(S, T) / H(S)
        F = 2 I(S, T) / (H(S) + H(T))

    A foreground pixel predicted as 0 is a segment of its own. An entropy of 0 (one segment)
    leaves nothing to lose: that score is 1.
    truth, predicted: int [H, W]. All NaN if the truth has no foreground; raises ValueError if
    the shapes differ.
    Source: Arganda-Carreras et al. (2015), V^Info.
    Deviation: where truth and prediction both are one segment the challenge program gives 0,
    this 1.
    """
    joint, true_sizes, sizes, alone, total = _overlaps(truth, predicted)
    if total == 0:
        return (np.nan,) * 3
    single = alone / total * np.log(total)  # entropy of the pixels that are their own segment
    joint_entropy = _entropy(joint / total) + single
    true_entropy = _entropy(true_sizes / total)
    entropy = _entropy(sizes / total) + single
    shared = max(0.0, true_entropy + entropy - joint_entropy)
    precision = shared / true_entropy if true_entropy > 0 else 1.0
    recall = shared / entropy if entropy > 0 else 1.0
    return _harmonic(precision, recall), float(min(precision, 1.0)), float(min(recall, 1.0))


def adapted_rand(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Adapted Rand error, 1 - F over pairs of different pixels; 0 is perfect.

    scikit-image's, with truth 0 ignored. Unlike in `rand_scores` all pixels predicted as 0 are one
    segment. truth, predicted: int [H, W]. NaN if the truth has no foreground; raises ValueError
    if the shapes differ. Its precision and recall are left out: scikit-image returns them
    exchanged (its issue 6485), `rand_scores` gives them.
    """
    from skimage.metrics import adapted_rand_error

    _check(truth, predicted)
    if not truth.any():
        return np.nan
    with np.errstate(invalid="ignore"):  # NaN if no segment has two pixels
        return float(adapted_rand_error(truth, predicted, ignore_labels=(0,))[0])


def variation_of_information(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Variation of information in bits: (splits H(S|T), merges H(T|S)); their sum is VI.

    scikit-image's, with truth 0 ignored and all pixels predicted as 0 one segment.
    truth, predicted: int [H, W]. Both NaN if the truth has no foreground.
    """
    from skimage.metrics import variation_of_information as entropies

    _check(truth, predicted)
    if not truth.any():
        return np.nan, np.nan
    splits, merges = entropies(truth, predicted, ignore_labels=(0,))
    return abs(float(splits)), abs(float(merges))  # abs: -0.0 of a perfect match


def isbi2012(
    membrane_probability: np.ndarray,
    truth_membrane: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    thin: bool = True,
    valid: np.ndarray | None = None,
) -> dict[str, float]:
    """Scores of the ISBI 2012 challenge: the best V_rand and V_info over the thresholds.

    At a threshold t the predicted interior is where 1 - membrane_probability > t; its connected
    components are grown until their borders are one pixel wide (`thin_borders`), compared with
    the components of the true interior on true interior pixels, page by page; the pages' scores
    are averaged, then the threshold with the highest mean is taken, for each score by itself.

    membrane_probability: float [P, H, W] in [0, 1] (a 0/1 label map will do, at one threshold);
    truth_membrane: bool [P, H, W]; thin: False leaves the predicted borders as they are;
    valid: bool [P, H, W], False where the truth is unknown (those pixels are left out).
    Returns `v_rand`, `v_rand_precision`, `v_rand_recall`, `v_rand_threshold` and the same for
    `v_info`. Raises ValueError if the shapes differ or no threshold is given.
    Source: Arganda-Carreras et al. (2015) and the challenge's published evaluation script
    (Fiji, "Segmentation evaluation after border thinning"). As there, only the prediction is
    thinned; the truth is kept as drawn, its membrane being left out anyway.
    Deviation: where two segments are equally near, the one-pixel border may run a pixel beside
    the one that the challenge's program draws; a prediction without any interior is one segment
    per pixel, not one in all.
    """
    if len(membrane_probability) != len(truth_membrane):
        raise ValueError(
            f"{len(membrane_probability)} predicted and {len(truth_membrane)} true pages"
        )
    valid = [None] * len(truth_membrane) if valid is None else valid
    pages = zip(membrane_probability, truth_membrane, valid, strict=True)
    sweeps = [sweep(p, t, thresholds, thin=thin, valid=v) for p, t, v in pages]
    return at_best_threshold(np.stack(sweeps), thresholds)


def sweep(
    membrane_probability: np.ndarray,
    truth_membrane: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    thin: bool = True,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Rand and information scores of one page at every threshold, float64 [2, T, 3].

    The last axis holds F, precision and recall; NaN if the truth has no interior.
    Arguments as in `isbi2012`, without the axis of pages.
    """
    if membrane_probability.shape != truth_membrane.shape or len(thresholds) == 0:
        raise ValueError(
            f"prediction {membrane_probability.shape}, truth {truth_membrane.shape}, "
            f"{len(thresholds)} thresholds: shapes must agree, thresholds must not be empty"
        )
    inside = ~truth_membrane.astype(bool)
    truth = segments(inside if valid is None else inside & valid)
    interior = 1.0 - membrane_probability.astype(np.float64)
    scores = []
    for threshold in thresholds:
        predicted = segments(interior > threshold)
        predicted = thin_borders(predicted) if thin else predicted
        scores.append((rand_scores(truth, predicted), information_scores(truth, predicted)))
    return np.asarray(scores, np.float64).transpose(1, 0, 2)


def at_best_threshold(sweeps: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
    """The keys that `isbi2012` returns, from the results of `sweep`, [P, 2, T, 3]."""
    known = sweeps[~np.isnan(sweeps[:, 0, 0, 0])]
    means = known.mean(0) if len(known) else np.full(sweeps.shape[1:], np.nan)
    result = {}
    for name, values in zip(("v_rand", "v_info"), means, strict=True):
        best = int(np.argmax(np.nan_to_num(values[:, 0], nan=-1.0)))
        score, precision, recall = (float(value) for value in values[best])
        result |= {name: score, f"{name}_precision": precision, f"{name}_recall": recall}
        result[f"{name}_threshold"] = float(thresholds[best])
    return result


def _check(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in shape")


def _overlaps(truth: np.ndarray, predicted: np.ndarray):
    """Pixel counts on the foreground: joint, per true and predicted segment, unassigned, all.

    float64: the sums of squares of int64 would hold too, products of large pages might not.
    """
    _check(truth, predicted)
    inside = truth != 0
    rows, columns = truth[inside].astype(np.int64), predicted[inside].astype(np.int64)
    true_sizes = np.bincount(rows).astype(np.float64)
    alone = float(np.sum(columns == 0))
    rows, columns = rows[columns != 0], columns[columns != 0]
    sizes = np.bincount(columns).astype(np.float64)
    pairs = rows * (len(sizes) + 1) + columns
    joint = np.unique(pairs, return_counts=True)[1].astype(np.float64)
    return joint, true_sizes, sizes, alone, float(inside.sum())


def _entropy(fractions: np.ndarray) -> float:
    """-sum p ln p over the positive fractions, in nats."""
    fractions = fractions[fractions > 0]
    return float(-np.sum(fractions * np.log(fractions)))


def _harmonic(first: float, second: float) -> float:
    return float(2 * first * second / (first + second)) if first + second > 0 else 0.0
