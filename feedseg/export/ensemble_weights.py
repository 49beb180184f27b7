"""Weights of an ensemble's members, learned on validation images, and what they are worth.

Only the weights are learned, by the cross-entropy at labeled pixels and Adam, from equal ones on.
They are used only where they beat plain averaging on images that they have not seen, and that
twice: a gain on one half of a few images alone is luck.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from feedseg.datasets.common.dataset import VOID
from feedseg.evaluation import metrics
from feedseg.inference import ensemble

STEPS, RATE = 300, 0.02
LEAST_GAIN = 0.002  # mean IoU; below it averaging, which cannot overfit, is the better choice
MOST_PIXELS = 2**15  # of which weights are learned; there are as few weights as members

Rules = Mapping[str, tuple[str, np.ndarray]]  # by name: rule and weights of `ensemble.combined`


class Learned(NamedTuple):
    """Weights [S] of `awel`, learned on all images, and mean IoUs of images not learned from.

    held_out: for either half of the images that of weights learned on the other half, and that of
    plain averaging; () if there is only one item.
    """

    weights: np.ndarray
    held_out: tuple[tuple[float, float], ...]

    @property
    def pays(self) -> bool:
        """Whether learned weights beat averaging on both halves, by more than chance may."""
        gains = [ours - plain for ours, plain in self.held_out]
        return bool(gains) and min(gains) > LEAST_GAIN


def learn(
    probabilities: np.ndarray, labels: np.ndarray, sources: np.ndarray, seed: int = 0
) -> Learned:
    """AWEL's weights from the members' probabilities [S, N, H, W, K] and the truth [N, H, W].

    They are learned twice more, on either half of the images, and tried on the other; crops of
    one image (`sources`, [N]) stay in one half.
    """

    def tried(unseen: np.ndarray) -> tuple[float, float]:
        weights = fit(probabilities[:, ~unseen], labels[~unseen], seed)
        rules = {"awel": ("awel", weights), "average": average(len(weights))}
        items = np.moveaxis(probabilities[:, unseen], 1, 0)
        found = matrices(items, labels[unseen], rules)
        return tuple(float(metrics.mean(metrics.iou(found[name]))) for name in rules)

    first = _first_half(sources)
    held_out = () if first.all() else (tried(first), tried(~first))
    return Learned(fit(probabilities, labels, seed), held_out)


def _first_half(sources: np.ndarray) -> np.ndarray:
    """[N] bool, the items of the first half of the images, or of the items if all are of one."""
    units = sources if len(set(sources.tolist())) > 1 else np.arange(len(sources))
    each = np.unique(units)
    return np.isin(units, each[: -(-len(each) // 2)])


def fit(probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The weights w [S] of `ensemble.combined` that make the truth most likely.

        w = argmin mean_x -log p_y(x),   p = softmax_k(sum_s w_s log p_s)

    probabilities [S, N, H, W, K], labels [N, H, W]. Equal weights if no pixel has a truth.
    """
    place = np.flatnonzero(labels.ravel() != VOID)
    if len(place) > MOST_PIXELS:
        place = np.random.default_rng(seed).choice(place, MOST_PIXELS, replace=False)
    start = ensemble.equal_weights(len(probabilities))
    if not len(place):
        return start
    flat = probabilities.reshape(*probabilities.shape[:1], -1, probabilities.shape[-1])
    return np.asarray(_descend(start, flat[:, place], labels.ravel()[place]))


@jax.jit
def _descend(weights: jax.Array, probabilities: jax.Array, truth: jax.Array) -> jax.Array:
    """Weights after the steps of Adam; probabilities [S, n, K], truth [n]."""
    right = jax.nn.one_hot(truth, probabilities.shape[-1])

    def loss(weights):
        joined = ensemble.combined(probabilities, "awel", weights)
        likely = jnp.sum(right * joined, -1)
        return -jnp.mean(jnp.log(jnp.maximum(likely, ensemble.FLOOR)))

    adam = optax.adam(RATE)

    def step(_, carried):
        weights, state = carried
        change, state = adam.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, change), state

    return jax.lax.fori_loop(0, STEPS, step, (weights, adam.init(weights)))[0]


def average(count: int) -> tuple[str, np.ndarray]:
    """The rule of plain averaging."""
    return "average", ensemble.equal_weights(count)


def member_rules(names: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
    """Each member alone, as a rule."""
    alone = np.eye(len(names), dtype=np.float32)
    return {name: ("average", row) for name, row in zip(names, alone, strict=True)}


def matrices(
    answers: Iterable[np.ndarray], labels: np.ndarray, rules: Rules
) -> dict[str, np.ndarray]:
    """Confusion matrix of every rule over all items, int64 [K, K].

    answers: the members' probabilities item by item, [S, H, W, K]; labels [N, H, W].
    """
    combined = jax.jit(ensemble.combined, static_argnums=1)
    totals: dict[str, np.ndarray] = {}
    for several, truth in zip(answers, labels, strict=True):
        for name, (rule, weights) in rules.items():
            predicted = np.asarray(combined(several, rule, weights).argmax(-1))
            totals[name] = totals.get(name, 0) + _count(truth, predicted, several.shape[-1])
    return totals


def _count(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    known = truth != VOID
    cells = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
