"""Exact attention with one query channel, in time that grows with Q + K instead of Q x K.

With scalar queries and keys a weight is e^(q k), and but for a factor that cancels it is
e^(-|q| d), d being the distance of the key from the largest key (for q > 0) or the smallest (for
q < 0). Weights below e^-30 do not matter beside the largest, which is 1; so distances are resolved
finely near the ends and ever more coarsely away from them, and |q| finely near 0: intervals that
grow by a factor. In each a polynomial through 12 points gives e^(-|q| d) to float32 rounding. Keys
hand their values to these points, queries take theirs from such points, and exponentials are taken
between points only: 768 x 768 of each sign instead of 65,536 x 65,536 for 256 x 256 px.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from feedseg.models.layers.shapes import check

Array = jax.Array

_INTERVALS = 32  # per end: enough for |q k| of 10^6, at which they grow by 1.5
_NODES = 12  # Chebyshev nodes per interval
_ANGLES = np.pi * (np.arange(_NODES) + 0.5) / _NODES  # the nodes are their cosines
_BLOCK = 2**14  # points spread at once
_EXACT = lax.Precision.HIGHEST


class Grid(NamedTuple):
    """Points on an axis with two sides, each in an interval of its side."""

    index: Array  # [P] interval of each point, those of the second side after the first
    weights: Array  # [P, 12] of its interval's nodes
    nodes: Array  # [intervals * 12] their positions, the same on both sides


def _grid(x: Array, second: Array, first: Array) -> Grid:
    """Intervals from 0 to the largest of x [P] >= 0: one up to `first`, then growing by a factor.

    second: [P] booleans, which side a point is on.
    """
    last = jnp.maximum(x.max(), 1e-30)
    first = jnp.minimum(first, last)
    growth = jnp.log(last / first) / (_INTERVALS - 1)
    steps = jnp.log(jnp.maximum(x, first) / first) / jnp.maximum(growth, 1e-30)
    index = jnp.where(x < first, 0, 1 + jnp.floor(steps))
    index = jnp.clip(index, 0, _INTERVALS - 1).astype(jnp.int32)
    ends = first * jnp.exp(growth * jnp.arange(_INTERVALS))
    starts = jnp.concatenate([jnp.zeros(1), ends[:-1]])
    centers, halves = (ends + starts) / 2, jnp.maximum((ends - starts) / 2, 1e-35)
    nodes = centers[:, None] + halves[:, None] * jnp.asarray(np.cos(_ANGLES), x.dtype)
    weights = _lagrange((x - centers[index]) / halves[index])
    return Grid(index + _INTERVALS * second, weights, nodes.reshape(-1))


def _lagrange(s: Array) -> Array:
    """Weights [P, nodes] that interpolate from the Chebyshev nodes to s in [-1, 1], [P].

    Written with Chebyshev polynomials, `L_m(s) = 2/n sum'_j T_j(x_m) T_j(s)`, which are smooth
    everywhere, the nodes included.
    """
    s = jnp.clip(s, -1, 1)
    at_nodes = np.cos(np.outer(np.arange(_NODES), _ANGLES)) * (2 / _NODES)
    at_nodes[0] /= 2
    polynomials = [jnp.ones_like(s), s]
    for _ in range(_NODES - 2):
        polynomials.append(2 * s * polynomials[-1] - polynomials[-2])
    return jnp.matmul(jnp.stack(polynomials, -1), jnp.asarray(at_nodes, s.dtype), precision=_EXACT)


def _interpolate(grid: Grid, at_nodes: Array) -> Array:
    """Values at the points, [P, E], from those at the nodes of both sides, [2, nodes, E]."""
    near = at_nodes.reshape(2 * _INTERVALS, _NODES, -1)[grid.index]
    return jnp.einsum("pm,pme->pe", grid.weights, near, precision=_EXACT)


def _spread(grid: Grid, values: Array) -> Array:
    """The transpose of `_interpolate`: [P, E] to sums at the nodes, [2, nodes, E].

    As products with ones and zeros, block by block: no scattered additions, whose order would
    change from run to run on a GPU.
    """
    block = min(_BLOCK, len(values))
    rest = -len(values) % block

    def fill(x):
        return jnp.pad(x, [(0, rest)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, block, *x.shape[1:])

    def add(total, points):
        index, weights, value = points
        shares = (weights[:, :, None] * value[:, None]).reshape(block, -1)
        chosen = jax.nn.one_hot(index, 2 * _INTERVALS, dtype=value.dtype)
        return total + jnp.matmul(chosen.T, shares, precision=_EXACT), None

    start = jnp.zeros((2 * _INTERVALS, _NODES * values.shape[1]), values.dtype)
    total, _ = lax.scan(add, start, (fill(grid.index), fill(grid.weights), fill(values)))
    return total.reshape(2, _INTERVALS * _NODES, -1)


class _Pair(NamedTuple):
    """Queries and keys on their axes."""

    queries: Grid  # of |q|; sides: q >= 0, q < 0
    keys: Grid  # of the distance to the nearer end; sides: the largest key, the smallest
    distances: Array  # [2, 2, M] from the end that a query's side asks for, by side of the key
    weights: Array  # [2, M, 2, M] e^(-|q| d) by side and node of query and key
    ends: Array  # [2, E] values of the largest and the smallest key


def _pair(q: Array, k: Array, v: Array) -> _Pair:
    low, high = k.min(), k.max()
    ends = v[jnp.stack([k.argmax(), k.argmin()])]
    k = k - (low + high) / 2  # softmax does not see it
    reach = jnp.maximum(jnp.abs(k).max(), 1e-30)
    size = jnp.abs(q)
    keys = _grid(reach - jnp.abs(k), k < 0, 4 / jnp.maximum(size.max(), 1e-30))
    queries = _grid(size, q < 0, 2 / reach)
    near, far = keys.nodes, 2 * reach - keys.nodes
    distances = jnp.stack([jnp.stack([near, far]), jnp.stack([far, near])])
    weights = jnp.exp(-queries.nodes[:, None, None] * distances[:, None])
    return _Pair(queries, keys, distances, weights, ends)


@jax.custom_vjp
def scalar_attention(q: Array, k: Array, v: Array) -> Array:
    """Attention of one image: q [Q], k [K], v [K, E] -> [Q, E], float32.

        O_i = sum_j e^(q_i k_j) v_j / sum_j e^(q_i k_j)

    Gradients are sums of the same kind with their own interpolation, not derivatives of the
    interpolating polynomials, which would be less exact. Values are counted from that of the key
    at a query's end: where it has all the weight, differences would be lost to rounding else.
    """
    check("scalar_attention", q=(q, "Q"), k=(k, "K"), v=(v, "K E"))
    return _forward(q, k, v)[0]


def _from_ends(v: Array, ends: Array) -> Array:
    """[2, K, E + 1]: values from those of either end, and ones."""
    from_ends = v - ends[:, None]
    return jnp.concatenate([from_ends, jnp.ones_like(from_ends[..., :1])], -1)


def _forward(q: Array, k: Array, v: Array):
    pair, second = _pair(q, k, v), (q < 0).astype(jnp.int32)
    values = _from_ends(v, pair.ends)
    masses = jnp.stack([_spread(pair.keys, each) for each in values])  # [2, 2, M, E + 1]
    # sum_k w (m, d m): the second for the slope by |q|
    both = jnp.concatenate([masses, pair.distances[..., None] * masses], -1)
    at_nodes = jnp.einsum("aqsk,aske->aqe", pair.weights, both, precision=_EXACT)
    sums, slopes = jnp.split(_interpolate(pair.queries, at_nodes), 2, 1)
    from_end, total = sums[:, :-1] / sums[:, -1:], sums[:, -1:]
    slopes = (2 * second - 1)[:, None] * slopes
    return pair.ends[second] + from_end, (q, k, v, from_end, total, slopes)


def _backward(saved, d_out: Array):
    q, k, v, from_end, total, slopes = saved
    pair, d_values = _pair(q, k, v), d_out / total
    d_sums = jnp.concatenate([d_values, -jnp.sum(d_values * from_end, 1, keepdims=True)], 1)
    masses = _spread(pair.queries, d_sums)  # [2, M, E + 1]
    signed = jnp.stack([pair.queries.nodes, -pair.queries.nodes])[..., None] * masses
    both = jnp.concatenate([masses, signed], -1)  # sum_q w (m, q m): the second for the slope by k
    at_nodes = jnp.einsum("aqsk,aqe->aske", pair.weights, both, precision=_EXACT)
    back, back_slopes = zip(
        *(jnp.split(_interpolate(pair.keys, each), 2, 1) for each in at_nodes), strict=True
    )
    values = _from_ends(v, pair.ends)
    dk = sum((value * slope).sum(1) for value, slope in zip(values, back_slopes, strict=True))
    return (d_sums * slopes).sum(1), dk, sum(back)[:, :-1]


scalar_attention.defvjp(_forward, _backward)
