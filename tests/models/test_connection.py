"""Connections from the last to the first feature map against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.feedback.connection import KINDS, Connection
from feedseg.models.feedback.round_norm import NormConfig
from tests.models.test_convlstm import same_conv

EPSILON = 1e-3
SETTINGS = dict(
    kind="self",
    qk_div=8,
    v_div=2,
    kv_pool=1,
    query_block=16,
    output_norm=True,
    light_convs=1,
    light_residual=False,
    se_biases=False,
    use_scale=True,
    use_bias=True,
    initializer="torch",
    norms=NormConfig(1, "shared", 0.9, EPSILON),
)
CHANNELS = {  # parameters at 8 and 64 channels
    "add": (1, 1),
    "conv1x1": (73, 4_161),
    "se": (17, 513),
    "light": (601, 37_057),
    "self": (123, 5_457),
    "source_target": (123, 5_457),
}


def connection(**changes) -> Connection:
    return Connection(**{**SETTINGS, **changes})


def maps(channels: int = 8, side: int = 4) -> tuple:
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.normal(size=(2, side, side, channels)), jnp.float32) for _ in range(2)
    )


def random_variables(layer, f, g) -> dict:
    rng = np.random.default_rng(1)
    variables = layer.init(jax.random.key(0), f, g, 0, train=False)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.5), variables["params"]
    )
    return {"batch_stats": {}, **variables, "params": params}


def point(x, p):
    return x @ p["kernel"][0, 0] + p.get("bias", 0)


def norm(z, p):
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    return (z - mean) / np.sqrt(var + EPSILON) * p["scale"] + p["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attend(f, g, p, pool):
    q, k, v = (
        norm(point(x, p[name]), p[f"{name}_norm"])
        for x, name in ((f, "query"), (g, "key"), (g, "value"))
    )
    if pool > 1:
        n, h, w, _ = k.shape
        k, v = (x.reshape(n, h // pool, pool, w // pool, pool, -1).max((2, 4)) for x in (k, v))
    out = []
    for a, b, c in zip(q, k, v, strict=True):
        z = np.exp(a.reshape(-1, a.shape[-1]) @ b.reshape(-1, b.shape[-1]).T)
        out.append(
            (z / z.sum(1, keepdims=True) @ c.reshape(-1, c.shape[-1])).reshape(*a.shape[:2], -1)
        )
    return norm(point(np.stack(out), p["output"]), p["output_norm"])


def expected(kind, f, g, p, changes):
    if kind in ("self", "source_target"):
        return attend(g if kind == "self" else f, g, p, changes.get("kv_pool", 1))
    if kind == "add":
        return g
    if kind == "conv1x1":
        return point(g, p["pointwise"])
    if kind == "se":
        hidden = np.maximum(point(g.mean((1, 2), keepdims=True), p["fc1"]), 0)
        return g * sigmoid(point(hidden, p["fc2"]))
    mask = g
    for index in range(1, changes.get("light_convs", 1) + 1):
        mask = np.maximum(mask, 0) if index == 2 else mask
        mask = norm(same_conv(mask, p[f"conv{index}"]["kernel"]), p[f"norm{index}"])
    gated = g * sigmoid(mask)
    return g + gated if changes.get("light_residual") else gated


@pytest.mark.parametrize(
    "kind, changes",
    [(kind, {}) for kind in KINDS if kind != "none"]
    + [
        ("self", dict(kv_pool=2)),
        ("source_target", dict(kv_pool=4, use_scale=False)),
        ("se", dict(se_biases=True)),
        ("light", dict(light_convs=2)),
        ("light", dict(light_residual=True)),
    ],
)
def test_definition(kind, changes):
    f, g = maps()
    layer = connection(kind=kind, **changes)
    variables = random_variables(layer, f, g)
    p = jax.tree.map(np.asarray, variables["params"])
    (found, shown), _ = layer.apply(variables, f, g, 0, train=True, mutable=["batch_stats"])
    fed_back = expected(kind, np.asarray(f, np.float64), np.asarray(g, np.float64), p, changes)
    np.testing.assert_allclose(found, f + p.get("scale", 1.0) * fed_back, atol=2e-5)
    assert set(shown) == ({"query", "key"} if kind in ("self", "source_target") else set())


@pytest.mark.parametrize("kind", list(CHANNELS))
def test_parameters_and_start(kind):
    """As many parameters as published; at the start the connection does nothing."""
    for channels, count in zip((8, 64), CHANNELS[kind], strict=True):
        f, g = maps(channels)
        layer = connection(kind=kind)
        (a, _), variables = layer.init_with_output(jax.random.key(0), f, g, 0, train=False)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
        np.testing.assert_array_equal(a, f)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(kind="gate"), "choose none, self, source_target"),
        (dict(kv_pool=3), "choose 1, 2 or 4"),
        (dict(kind="light", light_convs=3), "choose 1 or 2"),
    ],
)
def test_unknown_arguments(changes, message):
    f, g = maps()
    with pytest.raises(ValueError, match=message):
        connection(**changes).init(jax.random.key(0), f, g, 0, train=False)
