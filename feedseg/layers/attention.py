"""Exact attention over all pixels, in time and memory that images allow.

    O_i = sum_j softmax_j(q_i . k_j) v_j

without 1/sqrt(d), as in Feedback Attention (2020), Eqs. 1-3. The matrix of all weights (17 GB for
256 x 256 px) never exists. Queries are taken in blocks; with a single query channel the sums are
smooth functions of one number, evaluated at few points and interpolated to rounding error.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_NODES = 12  # Chebyshev nodes per interval: relative error below 1e-7 while |q - q_c| |k| <= 2
_ANGLES = np.pi * (np.arange(_NODES) + 0.5) / _NODES  # the nodes are their cosines
_REACH = 2.0
_INTERVALS = (16, 64, 256)  # numbers of intervals compiled; the smallest that suffices runs
_FEW = 2048  # query pixels below which plain blocks are as fast


def attention(q: Array, k: Array, v: Array, query_block: int) -> Array:
    """Attention of every query over all keys.

    q [N, Q, D], k [N, K, D], v [N, K, E] -> [N, Q, E], computed in float32. query_block: queries at
    once; memory grows with query_block x K. One query channel (D = 1) needs about 200 to 3000
    exponentials per key instead of Q.
    """
    dtype = v.dtype
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    if q.shape[-1] == 1 and q.shape[1] > _FEW:
        return _scalar_attention(q[..., 0], k[..., 0], v, query_block).astype(dtype)
    return blocked_attention(q, k, v, query_block).astype(dtype)


def attention_rows(q: Array, k: Array) -> Array:
    """Weights of chosen queries over all keys: q [R, D], k [K, D] -> [R, K], rows sum to 1."""
    return jax.nn.softmax(q.astype(jnp.float32) @ k.astype(jnp.float32).T)


def blocked_attention(q: Array, k: Array, v: Array, query_block: int) -> Array:
    """Attention image by image, `query_block` queries at a time; weights are computed again for the
    gradient instead of kept.
    """
    count = q.shape[1]
    block = min(query_block, count)
    padded = -(-count // block) * block
    q = jnp.pad(q, ((0, 0), (0, padded - count), (0, 0)))

    def image(each):
        q, k, v = each
        k_columns, v_one = k.T, _with_ones(v)

        @jax.checkpoint
        def attend(queries):
            scores = queries @ k_columns
            weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
            return _ratio(weights @ v_one)

        return lax.map(attend, q.reshape(-1, block, q.shape[-1])).reshape(padded, -1)

    return lax.map(image, (q, k, v))[:, :count]


def _with_ones(v: Array) -> Array:
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)


def _ratio(sums: Array) -> Array:
    return sums[..., :-1] / sums[..., -1:]


def _scalar_attention(q: Array, k: Array, v: Array, query_block: int) -> Array:
    """q [N, Q], k [N, K], v [N, K, E]: interpolated with as many intervals as the values ask for.

    Values spread too far for the largest number of intervals are computed in plain blocks.
    """
    spread = lax.stop_gradient(jnp.max(_half_range(q) * _half_range(k)))
    limits = _REACH * jnp.array(_INTERVALS, jnp.float32)
    choices = [functools.partial(_interpolated, intervals=count) for count in _INTERVALS]

    def plain(q, k, v):
        return blocked_attention(q[..., None], k[..., None], v, query_block)

    # NaN is in no range and goes the plain way, which hands it on
    index = jnp.where(spread <= limits[-1], jnp.sum(spread > limits), len(_INTERVALS))
    return lax.switch(index, [*choices, plain], q, k, v)


def _half_range(x: Array) -> Array:
    return (x.max(-1) - x.min(-1)) / 2


def _interpolated(q: Array, k: Array, v: Array, intervals: int) -> Array:
    return lax.map(lambda each: _interpolated_image(*each, intervals), (q, k, v))


def _interpolated_image(q: Array, k: Array, v: Array, intervals: int) -> Array:
    """Attention of one image with scalar queries and keys; q [Q], k [K], v [K, E] -> [Q, E].

    In an interval of half width d around q_c,

        e^(q k) = e^(q_c k) e^((q - q_c) k),   |(q - q_c) k| <= 2

    (keys shifted to [-max, max], which softmax does not see), so a polynomial of degree 11 in q
    gives every summand, all positive, to a relative error of 1e-7. Sums over the keys at the nodes
    of each interval, interpolated, are then as exact as sums in float32 are.
    """
    low, high, middle = (lax.stop_gradient(x) for x in (q.min(), q.max(), (k.min() + k.max()) / 2))
    k = k - middle
    reach = lax.stop_gradient(jnp.abs(k).max())
    half = jnp.maximum((high - low) / (2 * intervals), 1e-30)
    centres = low + half * (2 * jnp.arange(intervals) + 1)
    v_one = _with_ones(v)

    @jax.checkpoint
    def sums(centre):
        nodes = centre + half * jnp.asarray(np.cos(_ANGLES), q.dtype)
        # one shift for an interval's nodes: it cancels in the ratio and keeps e^x in range
        weights = jnp.exp(nodes[:, None] * k - jnp.abs(centre) * reach)
        return weights @ v_one, weights @ (k[:, None] * v_one)

    at = lax.stop_gradient(q)
    index = jnp.clip(jnp.floor((at - low) / (2 * half)), 0, intervals - 1).astype(jnp.int32)
    # a product with ones and zeros instead of a gather: its gradient is a product too
    chosen = jax.nn.one_hot(index, intervals, dtype=q.dtype)
    weights = _lagrange((at - centres[index]) / half)

    def interpolate(at_nodes):
        near = (chosen @ at_nodes.reshape(intervals, -1)).reshape(len(q), _NODES, -1)
        return jnp.einsum("qn,qne->qe", weights, near)

    values, slopes = map(interpolate, lax.map(sums, centres))
    return _ratio(_with_slope(values, slopes, q[:, None]))


@jax.custom_jvp
def _with_slope(values: Array, slopes: Array, q: Array) -> Array:
    """The values; their derivative by q is given. An interpolant's own one would be less exact."""
    return values


@_with_slope.defjvp
def _with_slope_jvp(primals, tangents):
    (values, slopes, _), (change, _, q_change) = primals, tangents
    return values, change + slopes * q_change


def _lagrange(s: Array) -> Array:
    """Weights [Q, nodes] that interpolate from the Chebyshev nodes to s in [-1, 1], [Q].

    Written with Chebyshev polynomials, `L_m(s) = 2/n sum'_j T_j(x_m) T_j(s)`, which are smooth
    everywhere, the nodes included.
    """
    at_nodes = np.cos(np.outer(np.arange(_NODES), _ANGLES)) * (2 / _NODES)
    at_nodes[0] /= 2
    polynomials = [jnp.ones_like(s), s]
    for _ in range(_NODES - 2):
        polynomials.append(2 * s * polynomials[-1] - polynomials[-2])
    return jnp.stack(polynomials, -1) @ jnp.asarray(at_nodes, s.dtype)
