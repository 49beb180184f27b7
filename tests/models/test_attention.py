"""Exact attention against the whole matrix of weights in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.feedback import attention as attentions
from feedseg.models.feedback.scalar_attention import scalar_attention

one_channel = jax.vmap(lambda q, k, v: scalar_attention(q[:, 0], k[:, 0], v))
exact = functools.partial(attentions.attention, query_block=1024)


def dense(q, k, v, do) -> tuple:
    """Output and gradients (by q, k, v of sum(do O)) from the whole matrix, float64, one image."""
    scores = q @ k.T
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    dw = do @ v.T
    ds = weights * (dw - (weights * dw).sum(1, keepdims=True))
    return weights @ v, ds @ k, ds.T @ q, weights.T @ do


def tokens(queries: int, keys: int, depth: int, q_scale: float, k_scale: float, seed: int = 0):
    """Two images; keys away from zero, as biases of a normalization put them.

    Queries and keys are multiples of 1/8: their products are exact in float32 too, or the rounding
    of large exponents would be all that is seen.
    """
    rng = np.random.default_rng(seed)
    q = np.round(8 * q_scale * rng.normal(size=(2, queries, depth))) / 8
    k = np.round(8 * k_scale * rng.normal(size=(2, keys, depth))) / 8 + 2
    return q, k, rng.normal(size=(2, keys, 4)), rng.normal(size=(2, queries, 4))


def assert_dense(function, case, tolerance: float) -> None:
    """Values and gradients within `tolerance` of the largest of each array, zeros of 1."""
    q, k, v, do = case
    wanted = [
        np.stack(x)
        for x in zip(*(dense(*each) for each in zip(q, k, v, do, strict=True)), strict=True)
    ]
    arrays = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    out, pull = jax.vjp(jax.jit(function), *arrays)
    found = (out, *pull(jnp.asarray(do, jnp.float32)))
    for name, have, want in zip(("O", "dq", "dk", "dv"), found, wanted, strict=True):
        error = np.abs(np.asarray(have) - want).max() / (np.abs(want).max() or 1)
        assert error < tolerance, (name, error)


@pytest.mark.parametrize("block", [7, 16, 1000])
@pytest.mark.parametrize("depth", [1, 3])
def test_blocks(depth, block):
    """Any block size: dividing the queries, leaving a rest, larger than all."""
    assert_dense(
        lambda q, k, v: attentions.attention(q, k, v, block), tokens(48, 32, depth, 1, 1), 2e-5
    )


SCALES = [(0.2, 0.2), (1, 1), (3, 2), (6, 5), (14, 10), (18, 16), (90, 70)]


@pytest.mark.parametrize("scales", SCALES)
def test_one_query_channel(scales):
    """Sums over grids are as exact as sums in float32, up to |q k| of 66,000."""
    assert_dense(one_channel, tokens(300, 200, 1, *scales), 2e-5)


def test_one_query_channel_of_one_sign():
    q, k, v, do = tokens(300, 200, 1, 3, 2)
    for sign in (1, -1):
        assert_dense(one_channel, (sign * np.abs(q), k, v, do), 2e-5)


def test_one_query_channel_with_bounded_values_and_few_keys():
    q, k, v, do = tokens(50, 3, 1, 3, 2)
    assert_dense(one_channel, (q, k, v, do), 2e-5)


def test_one_query_channel_with_nothing_to_tell_apart():
    """Equal keys or queries of 0: every output is the mean of the values."""
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in tokens(50, 30, 1, 3, 2))
    mean = np.broadcast_to(v.mean(1, keepdims=True), (2, 50, 4))
    np.testing.assert_allclose(one_channel(q, k[:, :1] + 0 * k, v), mean, atol=1e-5)
    np.testing.assert_allclose(one_channel(0 * q, k, v), mean, atol=1e-5)


def test_many_query_pixels_take_the_grids(monkeypatch):
    monkeypatch.setattr(attentions, "_FEW", 100)
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in tokens(300, 200, 1, 3, 3, seed=1))
    through_grids = exact(q, k, v)
    np.testing.assert_array_equal(through_grids, one_channel(q, k, v))
    plain = attentions.blocked_attention(q, k, v, 1024)
    assert not np.array_equal(through_grids, plain)
    np.testing.assert_allclose(through_grids, plain, atol=2e-5)


def test_equal_queries_and_keys(monkeypatch):
    """Nothing to interpolate between: weights are equal, no number is 0 / 0."""
    monkeypatch.setattr(attentions, "_FEW", 10)
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in tokens(64, 32, 1, 0, 0))
    out = exact(q, k, v)
    gradients = jax.grad(lambda *x: exact(*x).sum(), argnums=(0, 1, 2))(q, k, v)
    np.testing.assert_allclose(gradients[0], 0, atol=1e-4)
    np.testing.assert_allclose(gradients[1], 0, atol=1e-4)
    np.testing.assert_allclose(gradients[2], 2, rtol=1e-5)  # 64 queries, each 1 / 32
    np.testing.assert_allclose(out, np.broadcast_to(v.mean(1, keepdims=True), out.shape), atol=1e-6)


def test_nan_is_handed_on(monkeypatch):
    monkeypatch.setattr(attentions, "_FEW", 10)
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in tokens(64, 32, 1, 1, 1))
    assert np.isnan(exact(q.at[0, 3].set(jnp.nan), k, v)[0, 3]).all()


def test_bfloat16_is_computed_in_float32():
    q, k, v, _ = (jnp.asarray(x, jnp.bfloat16) for x in tokens(16, 16, 1, 1, 1))
    out = exact(q, k, v)
    assert out.dtype == jnp.bfloat16
    wanted = exact(*(x.astype(jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(out.astype(np.float32), wanted, rtol=1e-2, atol=1e-3)


def test_rows_are_the_weights():
    q, k, v, do = tokens(12, 20, 2, 1, 1)
    rows = attentions.attention_rows(jnp.asarray(q[0]), jnp.asarray(k[0]))
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(rows @ v[0], dense(q[0], k[0], v[0], do[0])[0], atol=1e-5)


def test_no_array_of_all_weights_exists():
    """At 4096 tokens the largest array anywhere in the program is a block, gradients included."""
    for depth in (1, 2):
        q, k, v = (jax.ShapeDtypeStruct((1, 4096, c), jnp.float32) for c in (depth, depth, 4))
        program = jax.make_jaxpr(
            jax.grad(lambda *x: attentions.attention(*x, 256).sum(), argnums=(0, 1, 2))
        )(q, k, v)
        assert largest(program.jaxpr) <= 2 * 256 * 4096


def largest(jaxpr) -> int:
    """Elements of the largest array in a program and in all programs within it."""
    sizes = [v.aval.size for e in jaxpr.eqns for v in e.outvars if hasattr(v.aval, "size")]
    inner = []
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(value, "jaxpr"):
                value = value.jaxpr
            if hasattr(value, "eqns"):
                inner.append(largest(value))
    return max(sizes + inner, default=0)
