"""Batch normalization with its own gradient against Flax's, which is differentiated as written."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.layers.batch_norm import BatchNorm, normalize
from tests.support.layer_checks import normal, pull_back

EPSILON, MOMENTUM = 1e-3, 0.9


def variables(features: int) -> dict:
    return {
        "params": {"scale": normal(2, features), "bias": normal(3, features)},
        "batch_stats": {"mean": normal(4, features), "var": 1 + jnp.square(normal(5, features))},
    }


def flax_norm(x, params, stats, train: bool, relu: bool):
    layer = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON)
    y, changed = layer.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
    return nn.relu(y) if relu else y, changed["batch_stats"]


def own_norm(x, params, stats, train: bool, relu: bool):
    layer = BatchNorm(MOMENTUM, EPSILON, relu)
    y, changed = layer.apply(
        {"params": params, "batch_stats": stats}, x, train=train, mutable=["batch_stats"]
    )
    return y, changed["batch_stats"]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(2, 6, 10, 5), (3, 7, 4), (16, 3)])
def test_it_is_flax_batch_norm(shape, relu, train):
    x, dy = 3 + 2 * normal(0, *shape), normal(1, *shape)
    found = variables(shape[-1])
    params, stats = found["params"], found["batch_stats"]

    def all_of(norm):
        def run(x, params):
            pulled = pull_back(lambda x, p: norm(x, p, stats, train, relu)[0], (x, params), dy)
            return pulled, norm(x, params, stats, train, relu)[1]

        return jax.jit(run)(x, params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=1e-4),
        all_of(own_norm),
        all_of(flax_norm),
    )


def test_variables_are_named_and_begin_as_flax_has_them():
    x = normal(0, 2, 4, 4, 3)
    ours = BatchNorm(MOMENTUM, EPSILON).init(jax.random.key(0), x, train=True)
    theirs = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("relu", [True, False])
def test_a_constant_channel_has_a_finite_gradient(relu):
    x = jnp.full((2, 4, 4, 1), 0.7)
    dy = normal(1, *x.shape)
    one = jnp.ones(1)
    y, *gradients = jax.tree.leaves(
        pull_back(lambda x, s, b: normalize(x, s, b, EPSILON, relu)[0], (x, one, one), dy)
    )
    np.testing.assert_allclose(y, 1, atol=1e-4)
    assert all(np.isfinite(g).all() for g in gradients)


def test_in_bfloat16_statistics_and_sums_are_float32():
    x = (5 + normal(0, 4, 32, 32, 2)).astype(jnp.bfloat16)
    one = jnp.ones(2, jnp.bfloat16)
    y, mean, var = normalize(x, one, 0 * one, EPSILON, False)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    full = x.astype(jnp.float32)
    np.testing.assert_allclose(mean, full.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, full.var((0, 1, 2)), rtol=1e-3)
    dx, dscale = jax.grad(
        lambda x, s: normalize(x, s, 0 * one, EPSILON, True)[0].astype(jnp.float32).sum(), (0, 1)
    )(x, one)
    assert dx.dtype == dscale.dtype == jnp.bfloat16
    want = jax.grad(lambda s: normalize(full, s, jnp.zeros(2), EPSILON, True)[0].sum())(jnp.ones(2))
    np.testing.assert_allclose(dscale.astype(jnp.float32), want, rtol=0.01)


def test_several_devices_share_the_statistics():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device")
    mesh = jax.make_mesh((2,), ("data",), devices=devices[:2])
    x, dy = normal(0, 4, 6, 6, 3), normal(1, 4, 6, 6, 3)
    params = variables(3)["params"]

    def both(x, params):
        return pull_back(
            lambda x, p: normalize(x, p["scale"], p["bias"], EPSILON, True)[0], (x, params), dy
        )

    split = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    got, want = jax.jit(both)(split, params), jax.jit(both)(x, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, want)
