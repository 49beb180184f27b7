"""Exact attention over all pixels, in time and memory that suffice for images.

    O_i = sum_j softmax_j(q_i . k_j) v_j

without 1/sqrt(d), as in Feedback Attention (2020), Eqs. 1-3. The matrix of all weights (17 GB for
256 x 256 px) never exists. Queries are taken in blocks; with a single query channel the sums are
smooth functions of two numbers (see `scalar_attention`).
"""

import jax
import jax.numpy as jnp
from jax import lax

from feedseg.models.feedback.scalar_attention import scalar_attention
from feedseg.models.layers.shapes import check

Array = jax.Array

_FEW = 2048  # query pixels below which plain blocks are as fast


def attention(q: Array, k: Array, v: Array, query_block: int) -> Array:
    """Attention of every query over all keys.

    q [N, Q, D], k [N, K, D], v [N, K, E] -> [N, Q, E], computed in float32. query_block: queries at
    once; memory grows with query_block x K. One query channel (D = 1) needs far fewer exponentials
    than Q x K.
    """
    check("attention", q=(q, "N Q D"), k=(k, "N K D"), v=(v, "N K E"))
    dtype = v.dtype
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    if q.shape[-1] == 1 and q.shape[1] > _FEW:
        one = lax.map(lambda x: scalar_attention(x[0][:, 0], x[1][:, 0], x[2]), (q, k, v))
        return one.astype(dtype)
    return blocked_attention(q, k, v, query_block).astype(dtype)


def attention_rows(q: Array, k: Array) -> Array:
    """Weights of chosen queries over all keys: q [R, D], k [K, D] -> [R, K], rows sum to 1."""
    return jax.nn.softmax(q.astype(jnp.float32) @ k.astype(jnp.float32).T)


def blocked_attention(q: Array, k: Array, v: Array, query_block: int) -> Array:
    """Attention image by image, `query_block` queries at a time; weights are computed again for the
    gradient instead of kept.
    """
    return lax.map(lambda image: _blocked_image(*image, query_block), (q, k, v))


def _blocked_image(q: Array, k: Array, v: Array, query_block: int) -> Array:
    count = len(q)
    block = min(query_block, count)
    queries = jnp.pad(q, ((0, -count % block), (0, 0))).reshape(-1, block, q.shape[1])
    k_columns, v_one = k.T, _with_ones(v)

    @jax.checkpoint
    def attend(block_queries):
        scores = block_queries @ k_columns
        weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
        return _ratio(weights @ v_one)

    return lax.map(attend, queries).reshape(-1, v.shape[1])[:count]


def _with_ones(v: Array) -> Array:
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)


def _ratio(sums: Array) -> Array:
    return sums[..., :-1] / sums[..., -1:]
