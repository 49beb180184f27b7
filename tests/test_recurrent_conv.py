"""Recurrent convolutions against the equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_convlstm import same_conv

from feedseg.layers.recurrent_conv import RecurrentConv
from feedseg.layers.round_norm import Norms

EPSILON = 1e-3


def normalise(z: np.ndarray) -> np.ndarray:
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    return np.maximum((z - mean) / np.sqrt(var + EPSILON), 0)


@pytest.mark.parametrize("t", [0, 2])
@pytest.mark.parametrize(
    ("kernel", "pointwise"),
    [("shared", True), ("shared", False), ("separate", True), ("unshared_per_step", False)],
)
def test_passes(kernel, pointwise, t):
    norms = Norms(1, "shared", 0.9, EPSILON)
    layer = RecurrentConv(2 if not pointwise else 3, kernel, t, norms, pointwise=pointwise)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 2))
    variables = layer.init(jax.random.key(1), jnp.asarray(x, jnp.float32), train=False)
    p = jax.tree.map(np.asarray, variables["params"])
    if kernel == "shared":
        y = x @ p["pointwise"]["kernel"][0, 0] if pointwise else x
        h = normalise(same_conv(y, p["conv"]["kernel"]))
        for _ in range(t):
            h = normalise(same_conv(y + h, p["conv"]["kernel"]))
    elif kernel == "unshared_per_step":
        h = normalise(same_conv(x, p["conv_step0"]["kernel"]))
        for s in range(t):
            h = normalise(same_conv(x + h, p[f"conv_step{s + 1}"]["kernel"]))
    else:
        y = same_conv(x, p["conv"]["kernel"])
        h = normalise(y)
        for _ in range(t):
            h = normalise(y + same_conv(h, p["recurrent"]["kernel"]))
    found, changed = layer.apply(
        variables, jnp.asarray(x, jnp.float32), train=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(found, h, atol=1e-5)
    for statistics in changed["batch_stats"].values():
        assert np.all(statistics["var"] != 1)
    assert len(changed["batch_stats"]) == (t + 1 if kernel == "unshared_per_step" else 1)


def test_unknown_kernel():
    layer = RecurrentConv(3, "both", 2, Norms(1, "shared", 0.9, EPSILON))
    with pytest.raises(ValueError, match="choose shared, separate"):
        layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=False)
