"""Means over all pixels of a batch."""

import jax

Array = jax.Array


def channel_mean(x: Array) -> Array:
    """Mean of each channel, x [..., C] -> [C], over the pixels of a row first.

    Several cores share the rows; the factor between the two sums keeps the compiler from making
    them one, of which each channel would be one core's work.
    """
    if x.ndim > 2:
        x = x.sum(-2) * (1 / x.shape[-2])
    return x.mean(tuple(range(x.ndim - 1)))
