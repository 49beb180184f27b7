"""Exact attention with one query channel: sums of e^(q k) from grids of points on both axes.

With scalar queries and keys the score of a pair is a product of two numbers, and e^(q k) is smooth
in each. The axis of the keys is cut into intervals in which a polynomial through 12 points gives
e^(q k) to float32 rounding; keys hand their values to these points, the same is done for the
queries, and exponentials are taken between points only: 3072 x 3072 of them in place of 65,536 x
65,536 for images of 256 x 256 px whose |q k| reaches 512.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_NODES = 12  # Chebyshev nodes per interval: relative error below 1e-7 while |q - q_c| |k| <= 2
_ANGLES = np.pi * (np.arange(_NODES) + 0.5) / _NODES  # the nodes are their cosines
_REACH = 2.0
SIZES = (16, 64, 256, 1024)  # numbers of intervals compiled; the smallest that suffices runs
_PAIRS = 2**20  # pairs of nodes, or of points and intervals, at once
_EXACT = lax.Precision.HIGHEST


class Grid(NamedTuple):
    """Points on an axis, each in its interval. Node m of interval i is at `centres_i + offsets_m`,
    kept as two numbers: rounded to one, it would be wrong by |q k| times the rounding error.
    """

    index: Array  # [P] interval of each point
    weights: Array  # [P, 12] of its interval's nodes
    centres: Array  # [intervals]
    offsets: Array  # [12]

    def times(self, values: Array) -> Array:
        """Positions of the nodes times values at the nodes, [intervals * 12, E]."""
        return (self.centres[:, None] + self.offsets).reshape(-1, 1) * values


def _grid(x: Array, intervals: int) -> Grid:
    """Intervals of equal width over the points [P]."""
    low, high = x.min(), x.max()
    half = jnp.maximum((high - low) / (2 * intervals), 1e-30)
    index = jnp.clip(jnp.floor((x - low) / (2 * half)), 0, intervals - 1).astype(jnp.int32)
    centres = low + half * (2 * jnp.arange(intervals) + 1)
    offsets = half * jnp.asarray(np.cos(_ANGLES), x.dtype)
    return Grid(index, _lagrange((x - centres[index]) / half), centres, offsets)


def _lagrange(s: Array) -> Array:
    """Weights [P, nodes] that interpolate from the Chebyshev nodes to s in [-1, 1], [P].

    Written with Chebyshev polynomials, `L_m(s) = 2/n sum'_j T_j(x_m) T_j(s)`, which are smooth
    everywhere, the nodes included.
    """
    at_nodes = np.cos(np.outer(np.arange(_NODES), _ANGLES)) * (2 / _NODES)
    at_nodes[0] /= 2
    polynomials = [jnp.ones_like(s), s]
    for _ in range(_NODES - 2):
        polynomials.append(2 * s * polynomials[-1] - polynomials[-2])
    return jnp.matmul(jnp.stack(polynomials, -1), jnp.asarray(at_nodes, s.dtype), precision=_EXACT)


def _interpolate(grid: Grid, at_nodes: Array) -> Array:
    """Values at the points, [P, E], from those at the nodes, [intervals * 12, E]."""
    near = at_nodes.reshape(len(grid.centres), _NODES, -1)[grid.index]
    return jnp.einsum("pm,pme->pe", grid.weights, near, precision=_EXACT)


def _spread(grid: Grid, values: Array) -> Array:
    """The transpose of `_interpolate`: [P, E] to sums at the nodes, [intervals * 12, E].

    As products with ones and zeros, block by block: no scattered additions, whose order would
    change from run to run on a GPU.
    """
    intervals, count = len(grid.centres), len(values)
    block = min(_PAIRS // intervals, count)
    rest = -count % block

    def fill(x):
        return jnp.pad(x, [(0, rest)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, block, *x.shape[1:])

    def add(total, each):
        index, weights, value = each
        shares = (weights[:, :, None] * value[:, None]).reshape(block, -1)
        chosen = jax.nn.one_hot(index, intervals, dtype=value.dtype)
        return total + jnp.matmul(chosen.T, shares, precision=_EXACT), None

    start = jnp.zeros((intervals, _NODES * values.shape[1]), values.dtype)
    total, _ = lax.scan(add, start, (fill(grid.index), fill(grid.weights), fill(values)))
    return total.reshape(intervals * _NODES, -1)


def _chunk(intervals: int) -> int:
    """Intervals of the queries at once."""
    wanted = max(1, _PAIRS // (intervals * _NODES * _NODES))
    return math.gcd(intervals, 2 ** int(math.log2(wanted)))


def _weights(centres: Array, queries: Grid, keys: Grid, reach: Array) -> Array:
    """`e^(q k - c)` of the query nodes of some intervals and all key nodes, [I * 12, M].

    centres [I] of the intervals; c = |centre| reach, one shift for the nodes of an interval, so
    that it cancels; e^2 is the largest result. The large part of q k - c is the product of a number
    with a difference that is small for the keys that count.
    """
    size, sign = jnp.abs(centres), jnp.sign(centres)
    large = size[:, None] * (sign[:, None] * keys.centres - reach)  # [I, n]
    inner = large[:, None] + queries.offsets[:, None] * keys.centres  # [I, 12, n]
    rest = (centres[:, None] + queries.offsets)[..., None] * keys.offsets  # [I, 12, 12]
    scores = inner[..., None] + rest[:, :, None]
    return jnp.exp(scores).reshape(len(centres) * _NODES, -1)


def _sums(queries: Grid, keys: Grid, masses: Array, reach: Array) -> Array:
    """`sum_k e^(q k - c) (m_k, k m_k)` at the nodes of the queries; masses m [M, E]."""
    both = jnp.concatenate([masses, keys.times(masses)], 1)
    size = _chunk(len(queries.centres))

    def chunk(centres):
        return jnp.matmul(_weights(centres, queries, keys, reach), both, precision=_EXACT)

    return lax.map(chunk, queries.centres.reshape(-1, size)).reshape(-1, both.shape[1])


def _sums_back(queries: Grid, keys: Grid, masses: Array, reach: Array) -> Array:
    """`sum_q e^(q k - c) (m_q, q m_q)` at the nodes of the keys; masses m of the query nodes."""
    both = jnp.concatenate([masses, queries.times(masses)], 1)
    size = _chunk(len(queries.centres))

    def add(total, each):
        centres, part = each
        weights = _weights(centres, queries, keys, reach)
        return total + jnp.matmul(weights.T, part, precision=_EXACT), None

    start = jnp.zeros((len(keys.centres) * _NODES, both.shape[1]), both.dtype)
    parts = both.reshape(-1, size * _NODES, both.shape[1])
    return lax.scan(add, start, (queries.centres.reshape(-1, size), parts))[0]


def spread_of(q: Array, k: Array) -> Array:
    """The largest |q k| once the keys are centred, which decides how many intervals it takes."""
    return jnp.abs(q).max() * (k.max() - k.min()) / 2


def enough(spread: Array) -> Array:
    """Index into SIZES of the smallest sufficient number of intervals; len(SIZES) if none is."""
    limits = _REACH * jnp.array(SIZES, jnp.float32)
    # NaN is in no range
    return jnp.where(spread <= limits[-1], jnp.sum(spread > limits), len(SIZES))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def scalar_attention(q: Array, k: Array, v: Array, intervals: int) -> Array:
    """Attention of one image: q [Q], k [K], v [K, E] -> [Q, E], float32.

        O_i = sum_j e^(q_i k_j) v_j / sum_j e^(q_i k_j)

    intervals: of SIZES, so many that `spread_of(q, k) <= 2 intervals`. Gradients are sums of the
    same kind with their own interpolation, not derivatives of the interpolating polynomials, which
    would be less exact.
    """
    return _forward(q, k, v, intervals)[0]


def _prepare(q: Array, k: Array, v: Array, intervals: int):
    k = k - (k.min() + k.max()) / 2  # softmax does not see it
    keys, queries = _grid(k, intervals), _grid(q, intervals)
    return queries, keys, jnp.abs(k).max(), jnp.concatenate([v, jnp.ones_like(v[:, :1])], 1)


def _forward(q: Array, k: Array, v: Array, intervals: int):
    queries, keys, reach, v_one = _prepare(q, k, v, intervals)
    at_nodes = _sums(queries, keys, _spread(keys, v_one), reach)
    sums, slopes = jnp.split(_interpolate(queries, at_nodes), 2, 1)
    out = sums[:, :-1] / sums[:, -1:]
    return out, (q, k, v, out, sums[:, -1:], slopes)


def _backward(intervals: int, saved, d_out: Array):
    q, k, v, out, total, slopes = saved
    queries, keys, reach, v_one = _prepare(q, k, v, intervals)
    d_values = d_out / total
    d_sums = jnp.concatenate([d_values, -jnp.sum(d_values * out, 1, keepdims=True)], 1)
    at_nodes = _sums_back(queries, keys, _spread(queries, d_sums), reach)
    back, back_slopes = jnp.split(_interpolate(keys, at_nodes), 2, 1)
    return (d_sums * slopes).sum(1), (v_one * back_slopes).sum(1), back[:, :-1]


scalar_attention.defvjp(_forward, _backward)
