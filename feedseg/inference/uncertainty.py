"""How far the answers within one model disagree: rounds, members, heads, or orientations."""

from typing import Any

Array = Any  # of NumPy or JAX

SOURCES = ("members", "rounds", "heads")  # outputs that are several answers to the same question


def disagreement(probabilities: Array) -> Array:
    """Jensen-Shannon divergence of S answers, in bits: 0 where all agree, at most log2 S or log2 K.

        U = H(mean_s p_s) - mean_s H(p_s),   H(p) = -sum_k p_k log2 p_k

    probabilities [S, N, H, W, K] -> [N, H, W]. Source: Lin (1991), Eq. 5.1; as a measure of what a
    model does not know: Houlsby et al. (2011), Eq. 2.
    """

    xp = probabilities.__array_namespace__()
    tiny = xp.finfo(xp.float32).tiny

    def entropy(p):
        return -(p * xp.log2(xp.maximum(p, tiny))).sum(-1)

    together = entropy(probabilities.mean(0))
    return xp.maximum(together - entropy(probabilities).mean(0), 0)


def answers(out: dict[str, Array]) -> Array | None:
    """The logits of a network's several answers, [S, N, H, W, K], or None if it has only one."""
    for name in SOURCES:
        if name in out and len(out[name]) > 1:
            return out[name]
    return None
