"""Loss terms by name over named outputs, and class weights.

The config's `loss.terms` maps an output (`final`, `first`, `members`, `rounds`, `member_rounds`,
`heads`, `edge`) to the weight of each kind of loss. All means run over the labeled pixels; void
pixels are masked and replaced.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.datasets.common.dataset import VOID, class_counts
from feedseg.runtime.errors import UserError

Array = jax.Array

# outputs with several maps along their first axis
STACKS = ("members", "rounds", "member_rounds", "heads")
OUTPUTS = ("final", "first", *STACKS)  # logits of the classes
EDGE = "edge"  # [N, H, W, 1], logits of "a border of two classes is near"
EDGE_RADIUS = 2  # px


class Truth(NamedTuple):
    """What the outputs are compared with."""

    labels: Array  # [N, H, W], 255 void
    onehot: Array  # [N, H, W, K], 0 on void pixels
    known: Array  # [N, H, W], 1 on labeled pixels
    class_weights: Array  # [K]
    maps: Mapping[str, Array]  # the data set's per-pixel maps, [N, H, W]

    def mean(self, values: Array) -> Array:
        """Mean over the labeled pixels of values [N, H, W] that are 0 elsewhere."""
        return jnp.sum(values) / jnp.maximum(self.known.sum(), 1)


def cross_entropy(logits: Array, truth: Truth) -> Array:
    """`-mean_p w[y_p] log softmax(z_p)[y_p]` over labeled pixels.

    logits [N, H, W, K]; w: class weights.
    Source: AEP (2024), Eq. 3; class weights as in Feedback U-Net (2020), section 4.
    """
    weighted = truth.onehot * truth.class_weights * jax.nn.log_softmax(logits)
    return -truth.mean(weighted.sum(-1))


def dice(logits: Array, truth: Truth) -> Array:
    """`1 - mean_k (2 sum_p q y + 1) / (sum_p q + sum_p y + 1)`, sums over the batch's pixels.

    q: softmax probabilities. Classes count alike unless class weights differ, which then weigh the
    mean over classes. Source: V-Net's soft Dice (Milletari et al., 2016), multi-class.
    """
    probability = jax.nn.softmax(logits) * truth.known[..., None]
    axes = (0, 1, 2)
    overlap = jnp.sum(probability * truth.onehot, axes)
    total = probability.sum(axes) + truth.onehot.sum(axes)
    return 1 - jnp.average((2 * overlap + 1) / (total + 1), weights=truth.class_weights)


def border_cross_entropy(logits: Array, truth: Truth) -> Array:
    """`-mean_p (w[y_p] + b_p) log softmax(z_p)[y_p]`: narrow gaps between cells weigh more.

    w: class weights; b: the map `border` (see `feedseg.datasets.common.border_weights`).
    Source: Ronneberger et al., U-Net (2015), Eqs. 1 and 2.
    """
    weights = truth.class_weights + truth.maps["border"][..., None]
    return -truth.mean((truth.onehot * weights * jax.nn.log_softmax(logits)).sum(-1))


def mask_cross_entropy(logits: Array, truth: Truth) -> Array:
    """`-mean_p t log q + (1 - t) log(1 - q)` with gray targets t in [0, 1] from the map `mask`.

    q: probability of class 1 of two. Between 0 and 1 a target's term cannot fall below its entropy
    `-t log t - (1 - t) log(1 - t)`. Source: blood-cell U-Net, section 5 (training on gray masks).
    """
    z = logits[..., 1] - logits[..., 0]
    return truth.mean(truth.known * (jax.nn.softplus(z) - truth.maps["mask"] * z))


def edge_cross_entropy(logits: Array, truth: Truth) -> Array:
    """Binary cross-entropy of an edge map with the borders in the labels (`label_edges`).

    logits [N, H, W, 1]. Source: SAUNet (Sun et al., 2020), its shape stream's loss.
    """
    z = logits[..., 0]
    return truth.mean(truth.known * (jax.nn.softplus(z) - label_edges(truth.labels) * z))


def label_edges(labels: Array) -> Array:
    """1 where another class is at most 2 px away (Euclidean), [N, H, W] float32; void has no edge.

    Equal to a threshold on the distance transforms of all classes and of their complements.
    """
    height, width = labels.shape[1:]
    edges = jnp.zeros(labels.shape, bool)
    reach = range(-EDGE_RADIUS, EDGE_RADIUS + 1)
    half = [(y, x) for y in reach for x in reach if (y, x) > (0, 0)]
    for y, x in half:
        if y * y + x * x > EDGE_RADIUS**2 or y >= height or abs(x) >= width:
            continue
        one = slice(None), slice(0, height - y), slice(max(0, -x), width - max(0, x))
        other = slice(None), slice(y, height), slice(max(0, x), width - max(0, -x))
        known = (labels[one] != VOID) & (labels[other] != VOID)
        differ = (labels[one] != labels[other]) & known
        edges = edges.at[one].set(edges[one] | differ)
        edges = edges.at[other].set(edges[other] | differ)
    return edges.astype(jnp.float32)


KINDS: Mapping[str, Callable[[Array, Truth], Array]] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "border_cross_entropy": border_cross_entropy,
    "mask_cross_entropy": mask_cross_entropy,
    "edge_cross_entropy": edge_cross_entropy,
}
# Kinds that need a map of the data set, and the key of the config that makes it.
NEEDED_MAPS = {
    "border_cross_entropy": ("border", "data.border_class"),
    "mask_cross_entropy": ("mask", "data.mask_values"),
}


def named_outputs(logits: Array, out: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs that hold class logits, by the names used in the loss and in evaluation."""
    return {"final": logits} | {name: out[name] for name in OUTPUTS if name in out}


def loss_outputs(logits: Array, out: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs that the loss can name: class logits, and `edge` where there is one."""
    return named_outputs(logits, out) | {name: out[name] for name in (EDGE,) if name in out}


def check_terms(terms: Mapping, available: Mapping, maps: Iterable[str] = ()) -> None:
    """Raises UserError if the terms name an output, a kind or a map that is not there.

    maps: names of the data set's per-pixel maps; weights of borders that no term uses are refused.
    """
    for name, kinds in terms.items():
        if name not in available:
            raise UserError(
                f"loss.terms.{name}: this network has no such output; it has {', '.join(available)}"
            )
        for kind, weight in kinds.items():
            _check_kind(name, kind, available[name], maps)
            if isinstance(weight, tuple) and (
                name not in STACKS or len(weight) != available[name].shape[0]
            ):
                raise UserError(f"loss.terms.{name}.{kind}={weight}: takes one weight per map")
    used = {kind for kinds in terms.values() for kind in kinds}
    if "border" in maps and "border_cross_entropy" not in used:
        raise UserError("data.border_class is set, but no loss term is a border_cross_entropy")


def _check_kind(name: str, kind: str, output: Array, maps: Iterable[str]) -> None:
    where = f"loss.terms.{name}.{kind}"
    if kind not in KINDS:
        raise UserError(f"{where}: choose from {', '.join(KINDS)}")
    if (name == EDGE) != (kind == "edge_cross_entropy"):
        raise UserError(f"{where}: edge_cross_entropy goes with the output edge, and only with it")
    if kind in NEEDED_MAPS:
        needed, key = NEEDED_MAPS[kind]
        if needed not in maps:
            raise UserError(f"{where}: needs {key}")
    if kind == "mask_cross_entropy" and output.shape[-1] != 2:
        raise UserError(f"{where}: takes two classes, here are {output.shape[-1]}")


def total_loss(
    outputs: Mapping[str, Array],
    labels: Array,
    terms: Mapping,
    class_weights: Array,
    maps: Mapping[str, Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Weighted sum of the terms and each term by itself (unweighted), in float32.

    outputs: from `loss_outputs`; labels [N, H, W] with 255 void; maps: the data set's per-pixel
    maps. A stack's maps are summed, each with the term's weight, or its own where the weight is a
    tuple.
    """
    num_classes = outputs["final"].shape[-1]
    known = (labels != VOID).astype(jnp.float32)
    onehot = jax.nn.one_hot(jnp.where(labels == VOID, 0, labels), num_classes) * known[..., None]
    truth = Truth(labels, onehot, known, class_weights, maps or {})
    total, parts = jnp.float32(0), {}
    for name, kinds in terms.items():
        stack = list(outputs[name]) if name in STACKS else [outputs[name]]
        for kind, weight in kinds.items():
            weights = weight if isinstance(weight, tuple) else (weight,) * len(stack)
            for index, (logits, each) in enumerate(zip(stack, weights, strict=True)):
                value = KINDS[kind](logits.astype(jnp.float32), truth)
                key = f"{name}/{index}" if name in STACKS else name
                parts[f"{key}/{kind}"] = value
                total = total + each * value
    return total, parts


def class_weights(labels: Iterable[np.ndarray], num_classes: int, kind: str) -> np.ndarray:
    """Weight of each class from the pixel counts n_c of the training labels, float32 [K].

    none: 1; balanced: `n / (K n_c)`; median: `median(n) / n_c`; sqrt: the square root of balanced,
    scaled to a pixel mean of 1. A class without pixels gets 1.
    Raises UserError for an unknown kind.
    """
    counts = class_counts(labels, num_classes).astype(np.float64)
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
