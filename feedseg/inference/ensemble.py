"""Several trained models as one: their probabilities averaged, or put together by learned weights.

The members stay as they are. How weights are learned stands in `feedseg.export.ensemble_weights`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.inference.predictor import TrainingImages
from feedseg.inference.trained import JaxPredictor
from feedseg.models.layers.awel import Awel
from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import note
from feedseg.runtime.rounding import round_up

Array = jax.Array

RULES = ("average", "awel")
FLOOR = 1e-7  # of a probability of which the logarithm is taken


def combined(probabilities: Array, rule: str, weights: Array) -> Array:
    """One answer from S, [S, ..., K] -> [..., K].

        average   p = sum_s w_s p_s
        awel      p = softmax_k(sum_s w_s log p_s)

    weights [S]; those of an average add up to 1. `awel` is the layer of AEP (2024), Fig. 4, fed
    with the members' logits m_s: log p_s is m_s less a number that all classes share, which the
    softmax takes away.
    """
    if rule == "average":
        exact = jax.lax.Precision.HIGHEST
        return jnp.einsum("s,s...->...", weights, probabilities, precision=exact)
    if rule != "awel":
        raise ValueError(f"rule={rule!r}: choose one of {', '.join(RULES)}")
    variables = {"params": {"weights": weights, "bias": jnp.zeros(1)}}
    layer = Awel(mode="learned", use="logits", initializer="mean")
    return jax.nn.softmax(layer.apply(variables, jnp.log(jnp.maximum(probabilities, FLOOR))))


def equal_weights(count: int) -> np.ndarray:
    """Those of plain averaging."""
    return np.full(count, 1 / count, np.float32)


def together(
    members: Sequence[JaxPredictor],
    names: Sequence[Any],
    rule: str = "average",
    weights: np.ndarray | None = None,
) -> JaxPredictor:
    """One model of several; weights: [S] of `combined`, None: all alike.

    All see the same tiles: as far as the widest receptive field reaches, or of the size that one
    of them had in training. Its `answers` are the members'. Members that normalize differently are
    given the image each in its way (`contracts`). With a network of unpadded convolutions among
    them the others, too, see the image continued as its mirror image.
    Raises UserError naming two models that do not fit each other.
    """
    check(members, names)
    weights = jnp.asarray(equal_weights(len(members)) if weights is None else weights, jnp.float32)
    put_together = jax.jit(functools.partial(combined, rule=rule))

    contracts = list(dict.fromkeys(map(_contract, members)))
    count = members[0].channels

    def answers(image, insides: bool = False):
        of = (m.inside if insides and m.inside else m.apply for m in members)
        starts = (count * contracts.index(_contract(m)) for m in members)
        return jnp.stack(
            [apply(image[..., s : s + count]) for apply, s in zip(of, starts, strict=True)]
        )

    def outputs(image):
        several = answers(image)
        joined = put_together(several, weights=weights)
        return jnp.log(jnp.maximum(joined, FLOOR)), {"members": jnp.log(several + FLOOR)}

    stride = math.lcm(*(m.stride for m in members))
    bare = any(m.inside for m in members)
    halo = round_up(max(m.halo for m in members), stride)
    clipping = [contract for contract in contracts if contract[0] == "dtype_range"]
    return members[0]._replace(
        contracts=tuple(contracts) if len(contracts) > 1 else (),
        normalization=(clipping or contracts)[0][0],  # which refuses values out of range
        apply=lambda image: put_together(answers(image), weights=weights),
        answers=answers,
        outputs=outputs,
        stride=stride,
        halo=halo,
        window=max(m.window for m in members),
        inside=_inside(answers, put_together, weights) if bare else None,
        margin=_margin(members, stride) if bare else 0,
        training_images=_training_images(members),
    )


def _training_images(members: Sequence[JaxPredictor]) -> TrainingImages:
    """Those of the first; without a pixel size where members have different ones, which is said."""
    first, sizes = members[0].training_images, {m.training_images.pixel_um for m in members}
    if len(sizes) == 1:
        return first
    listed = ", ".join(
        f"{s:.3g} µm" if s else "unknown" for s in sorted(sizes, key=lambda s: s or 0)
    )
    note(
        "pixel sizes of members",
        f"the models were trained at different pixel sizes ({listed}): images are taken as they "
        "are, or --scale",
    )
    return first._replace(pixel_um=None)


def _inside(answers: Callable, put_together: Callable, weights: Array) -> Callable:
    return lambda image: put_together(answers(image, insides=True), weights=weights)


def _margin(members: Sequence[JaxPredictor], stride: int) -> int:
    """Pixels on each side of a tile without result, or without true neighbors, for any member."""
    return round_up(max(m.margin if m.inside else m.halo for m in members), stride)


def check(members: Sequence[JaxPredictor], names: Sequence[Any]) -> None:
    """Raises UserError unless the models can be one; names: of the models, for the message."""
    if len(members) < 2:
        raise UserError("an ensemble needs at least two models")
    for member, name in zip(members[1:], names[1:], strict=True):
        for what, of in _SAME.items():
            if of(members[0]) != of(member):
                raise UserError(
                    f"{names[0]} and {name} differ in {what}: {_words(of(members[0]))} and "
                    f"{_words(of(member))}; models of one ensemble must agree"
                )
    windows = [(m.window, name) for m, name in zip(members, names, strict=True) if m.window]
    for (window, name), (other, second) in itertools.pairwise(windows):
        if window != other:
            raise UserError(
                f"{name} and {second} cannot be one: they depend on the size of what they see at "
                f"once, {window} px and {other} px"
            )
    stride = math.lcm(*(m.stride for m in members))
    for window, name in windows:
        if window % stride:
            raise UserError(f"{name} sees {window} px at once, others need a multiple of {stride}")


_SAME = {
    "classes": lambda m: m.class_names,
    "channels": lambda m: m.channels,
}


def _contract(member: JaxPredictor) -> tuple[str, tuple[float, float]]:
    """Rule and percentiles; where these do not count any will do."""
    counted = member.normalization != "dtype_range"
    return member.normalization, member.percentiles if counted else (0.0, 100.0)


def _words(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
