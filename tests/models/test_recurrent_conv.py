"""Recurrent convolutions against the equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.feedback.recurrent_conv import RecurrentConv
from feedseg.models.feedback.round_norm import NormConfig
from tests.models.test_convlstm import same_conv

EPSILON = 1e-3


def normalize(z: np.ndarray) -> np.ndarray:
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    return np.maximum((z - mean) / np.sqrt(var + EPSILON), 0)


@pytest.mark.parametrize("pass_norms", ["shared", "separate"])
@pytest.mark.parametrize("t", [0, 2])
@pytest.mark.parametrize(
    ("kernel", "pointwise"),
    [("shared", True), ("shared", False), ("separate", True), ("unshared_per_step", False)],
)
def test_passes(kernel, pointwise, t, pass_norms):
    norms = NormConfig(1, "shared", 0.9, EPSILON)
    features = 3 if pointwise else 2
    layer = RecurrentConv(features, kernel, t, norms, pointwise=pointwise, pass_norms=pass_norms)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 2))
    variables = layer.init(jax.random.key(1), jnp.asarray(x, jnp.float32), train=False)
    p = jax.tree.map(np.asarray, variables["params"])
    if kernel == "shared":
        y = x @ p["pointwise"]["kernel"][0, 0] if pointwise else x
        h = normalize(same_conv(y, p["conv"]["kernel"]))
        for _ in range(t):
            h = normalize(same_conv(y + h, p["conv"]["kernel"]))
    elif kernel == "unshared_per_step":
        h = normalize(same_conv(x, p["conv_step0"]["kernel"]))
        for s in range(t):
            h = normalize(same_conv(x + h, p[f"conv_step{s + 1}"]["kernel"]))
    else:
        y = same_conv(x, p["conv"]["kernel"])
        h = normalize(y)
        for _ in range(t):
            h = normalize(y + same_conv(h, p["recurrent"]["kernel"]))
    found, changed = layer.apply(
        variables, jnp.asarray(x, jnp.float32), train=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(found, h, atol=1e-5)
    for statistics in changed["batch_stats"].values():
        assert np.all(statistics["var"] != 1)
    own = kernel == "unshared_per_step" or pass_norms == "separate"
    assert len(changed["batch_stats"]) == (t + 1 if own else 1)


def test_separate_norms_keep_the_statistics_of_their_pass():
    """After training on one batch over and over, evaluation on it gives what training gave."""
    layer = RecurrentConv(
        3, "shared", 2, NormConfig(1, "shared", 0.5, EPSILON), pass_norms="separate"
    )
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 2))
    variables = layer.init(jax.random.key(1), x, train=False)
    for _ in range(30):
        trained, changed = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        variables |= changed
    np.testing.assert_allclose(layer.apply(variables, x, train=False), trained, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "choices"),
    [(dict(kernel="both"), "shared, separate"), (dict(pass_norms="both"), "shared, separate")],
)
def test_unknown_choice(settings, choices):
    norms = NormConfig(1, "shared", 0.9, EPSILON)
    layer = RecurrentConv(**dict(features=3, kernel="shared", t=2, norms=norms) | settings)
    with pytest.raises(ValueError, match=f"'both': choose {choices}"):
        layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=False)
