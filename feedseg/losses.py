"""Loss terms by name over named outputs, and class weights.

The config's `loss.terms` maps an output (`final`, `first`, `members`, `rounds`, `member_rounds`) to
the weight of each kind of loss. All means run over the labelled pixels; void pixels are masked and
replaced.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.datasets.base import VOID
from feedseg.errors import UserError

Array = jax.Array

STACKS = ("members", "rounds", "member_rounds")  # outputs with several maps along their first axis
OUTPUTS = ("final", "first", *STACKS)


def cross_entropy(logits: Array, onehot: Array, known: Array, class_weights: Array) -> Array:
    """`-mean_p w[y_p] log softmax(z_p)[y_p]` over labelled pixels.

    logits, onehot [N, H, W, K]; known [N, H, W] is 1 on labelled pixels; class_weights [K].
    Source: AEP (2024), Eq. 3; class weights as in Feedback U-Net (2020), section 4.
    """
    log_probability = jnp.sum(onehot * class_weights * jax.nn.log_softmax(logits), -1)
    return -jnp.sum(log_probability) / jnp.maximum(known.sum(), 1)


def dice(logits: Array, onehot: Array, known: Array, class_weights: Array) -> Array:
    """`1 - mean_k (2 sum_p q y + 1) / (sum_p q + sum_p y + 1)`, sums over the batch's pixels.

    q: softmax probabilities. Classes count alike unless class_weights differ, which then weigh the
    mean over classes. Source: V-Net's soft Dice (Milletari et al., 2016), multi-class.
    """
    probability = jax.nn.softmax(logits) * known[..., None]
    axes = (0, 1, 2)
    overlap = jnp.sum(probability * onehot, axes)
    total = probability.sum(axes) + onehot.sum(axes)
    return 1 - jnp.average((2 * overlap + 1) / (total + 1), weights=class_weights)


KINDS: Mapping[str, Callable] = {"cross_entropy": cross_entropy, "dice": dice}


def named_outputs(logits: Array, out: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs that hold class logits, by the names used in the loss and in evaluation."""
    return {"final": logits} | {name: out[name] for name in OUTPUTS if name in out}


def check_terms(terms: Mapping, available: Mapping) -> None:
    """Raises UserError if the terms name an output or a kind that is not there."""
    for name, kinds in terms.items():
        if name not in available:
            raise UserError(
                f"loss.terms.{name}: this network has no such output; it has {', '.join(available)}"
            )
        for kind, weight in kinds.items():
            if kind not in KINDS:
                raise UserError(f"loss.terms.{name}.{kind}: choose from {', '.join(KINDS)}")
            if isinstance(weight, tuple) and (
                name not in STACKS or len(weight) != available[name].shape[0]
            ):
                raise UserError(f"loss.terms.{name}.{kind}={weight}: takes one weight per map")


def total_loss(
    outputs: Mapping[str, Array], labels: Array, terms: Mapping, class_weights: Array
) -> tuple[Array, dict[str, Array]]:
    """Weighted sum of the terms and each term by itself (unweighted), in float32.

    outputs: from `named_outputs`; labels [N, H, W] with 255 void. A stack's maps are summed, each
    with the term's weight, or its own where the weight is a tuple.
    """
    num_classes = outputs["final"].shape[-1]
    known = (labels != VOID).astype(jnp.float32)
    onehot = jax.nn.one_hot(jnp.where(labels == VOID, 0, labels), num_classes) * known[..., None]
    total, parts = jnp.float32(0), {}
    for name, kinds in terms.items():
        maps = list(outputs[name]) if name in STACKS else [outputs[name]]
        for kind, weight in kinds.items():
            weights = weight if isinstance(weight, tuple) else (weight,) * len(maps)
            for index, (logits, each) in enumerate(zip(maps, weights, strict=True)):
                value = KINDS[kind](logits.astype(jnp.float32), onehot, known, class_weights)
                key = f"{name}/{index}" if name in STACKS else name
                parts[f"{key}/{kind}"] = value
                total = total + each * value
    return total, parts


def class_weights(labels: np.ndarray, num_classes: int, kind: str) -> np.ndarray:
    """Weight of each class from the pixel counts n_c of the training labels, float32 [K].

    none: 1; balanced: `n / (K n_c)`; median: `median(n) / n_c`; sqrt: the square root of balanced,
    scaled to a pixel mean of 1. A class without pixels gets 1.
    Raises UserError for an unknown kind.
    """
    counts = np.bincount(labels.ravel(), minlength=256)[:num_classes].astype(np.float64)
    present = counts > 0
    safe = np.where(present, counts, 1)
    balanced = counts.sum() / (num_classes * safe)
    root = np.sqrt(balanced)
    weights = {
        "none": np.ones(num_classes),
        "balanced": balanced,
        "median": np.median(counts[present]) / safe if present.any() else safe,
        "sqrt": root * counts.sum() / max(1.0, (root * counts)[present].sum()),
    }
    if kind not in weights:
        raise UserError(f"loss.class_weight={kind!r}: choose from {', '.join(weights)}")
    return np.where(present, weights[kind], 1).astype(np.float32)
