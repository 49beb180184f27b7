"""Scores of a segmentation from one confusion matrix: IoU, Dice, accuracy.

`confusion_per_image` counts on the device; everything else runs on the host with NumPy. A matrix
has the truth in its rows and the prediction in its columns, and matrices add: the score of a data
set is the score of the sum over its batches, not a mean over batches.

Absent classes: a class that occurs neither in the truth nor in the prediction has no score (NaN)
and is left out of the means; a class that is only predicted scores 0 and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the host part must not wait for JAX to load
    import jax

ABSENT_RULE = (
    "A class in neither truth nor prediction has no score (-) and is left out of the mean; "
    "one that is only predicted scores 0."
)


def confusion_per_image(
    labels: jax.Array, predictions: jax.Array, num_classes: int, void: int = 255
) -> jax.Array:
    """Confusion matrix of every image of a batch, int32 [N, K, K], truth in rows.

    M[n, i, j] = number of pixels of image n with truth i and prediction j.

    labels, predictions: [N, H, W] of any integer type. Pixels whose truth is `void`, or whose
    truth or prediction is no class id, count nowhere.
    The counts are exact: 8-bit one-hot codes are multiplied and summed in int32, which avoids
    both the scatter of a histogram and the 2^24 limit of float32 sums.
    """
    import jax
    import jax.numpy as jnp

    count = labels.shape[0]
    truth = jnp.where(labels == void, num_classes, labels.astype(jnp.int32))
    rows = jax.nn.one_hot(truth.reshape(count, -1), num_classes, dtype=jnp.int8)
    columns = jax.nn.one_hot(predictions.reshape(count, -1), num_classes, dtype=jnp.int8)
    return jnp.einsum("npi,npj->nij", rows, columns, preferred_element_type=jnp.int32)


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class, float64 [..., K].

    IoU_k = M_kk / (sum_j M_kj + sum_i M_ik - M_kk); NaN if the class is in neither truth nor
    prediction, 0 if it is only predicted or only in the truth. matrix: integers [..., K, K].
    """
    hits, truth, predicted = _marginals(matrix)
    return _ratio(hits, truth + predicted - hits)


def dice(matrix: np.ndarray) -> np.ndarray:
    """Dice coefficient (F1) per class, float64 [..., K]; absent classes as in `iou`.

    Dice_k = 2 M_kk / (sum_j M_kj + sum_i M_ik).
    """
    hits, truth, predicted = _marginals(matrix)
    return _ratio(2 * hits, truth + predicted)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Fraction of the counted pixels whose prediction is right, float64 [...]; NaN without any."""
    hits, truth, _ = _marginals(matrix)
    return _ratio(hits.sum(-1), truth.sum(-1))


def mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of the values that are not NaN (the classes or images with a score); NaN of none."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis), known.sum(axis))


def summary(matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Scores of one confusion matrix by name.

    Keys: `miou`, `mdice` (means over the classes with a score), `accuracy`, `iou/<class>`,
    `dice/<class>`; all fractions in [0, 1] or NaN.
    """
    return _named(iou(matrix), dice(matrix), accuracy(matrix), class_names)


def per_image(matrices: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Scores of every image, averaged over the images; keys as in `summary`.

    matrices: integers [N, K, K]. A class score is averaged over the images in which it exists
    (an image with the class in neither truth nor prediction is left out); `miou` and `mdice` are
    the mean over the images of each image's mean, so they may differ from the mean over classes.
    """
    matrices = np.asarray(matrices)
    scores = _named(
        mean(iou(matrices), axis=0),
        mean(dice(matrices), axis=0),
        mean(accuracy(matrices)),
        class_names,
    )
    scores["miou"] = float(mean(mean(iou(matrices), axis=-1)))
    scores["mdice"] = float(mean(mean(dice(matrices), axis=-1)))
    return scores


def image_scores(matrices: np.ndarray) -> dict[str, list[float]]:
    """`miou` and `mdice` of every image: means over the classes that exist in it; NaN of none.

    matrices: integers [N, K, K].
    """
    scores = {"miou": iou(matrices), "mdice": dice(matrices)}
    return {key: mean(values, axis=-1).tolist() for key, values in scores.items()}


def _marginals(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diagonal, row sums and column sums as int64 [..., K]."""
    matrix = np.asarray(matrix).astype(np.int64)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1), matrix.sum(-2)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    denominator = np.asarray(denominator, np.float64)
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, np.asarray(numerator, np.float64) / safe, np.nan)


def _named(ious, dices, right, class_names) -> dict[str, float]:
    scores = {"miou": mean(ious), "mdice": mean(dices), "accuracy": right}
    scores |= {f"iou/{name}": value for name, value in zip(class_names, ious, strict=True)}
    scores |= {f"dice/{name}": value for name, value in zip(class_names, dices, strict=True)}
    return {key: float(value) for key, value in scores.items()}
