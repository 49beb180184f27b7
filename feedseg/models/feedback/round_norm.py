"""Batch normalization of layers that are used in every round of a feedback network."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.batch_norm import apply_statistics, normalize
from feedseg.models.layers.shapes import check

Array = jax.Array

MODES = ("separate", "stats_only", "shared")


class RoundNorm(nn.Module):
    """Batch normalization with parameters and statistics by round.

        y = gamma_t (x - mean_t) / sqrt(var_t + epsilon) + beta_t

    mode: `separate`: each round has its own scale, bias and running statistics (Feedback U-Net
    (2020), Fig. 5, and its released code), arrays [rounds, C]; `stats_only`: its own statistics,
    one scale and bias (the other reading of Fig. 5); `shared`: one of all [C], every use updates
    the running averages in turn, and any number of rounds can follow (Feedback Attention (2020),
    which shares all weights). momentum: weight of the old running average. Statistics are float32.
    """

    rounds: int
    mode: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, t: Array | int = 0, *, train: bool, relu: bool = False) -> Array:
        """x [..., C] in round t, counted from 0; relu: and ReLU behind it."""
        check("RoundNorm", x=(x, "... C"))
        if self.mode not in MODES:
            raise ValueError(f"bn_rounds={self.mode!r}: choose {', '.join(MODES)}")
        features = x.shape[-1]
        per_round, one = (self.rounds, features), (features,)
        affine = per_round if self.mode == "separate" else one
        stored = one if self.mode == "shared" else per_round
        scale = _of_round(self.param("scale", nn.initializers.ones, affine), t)
        bias = _of_round(self.param("bias", nn.initializers.zeros, affine), t)
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, stored, jnp.float32),
            "var": self.variable("batch_stats", "var", jnp.ones, stored, jnp.float32),
        }
        if not train:
            now = {name: _of_round(variable.value, t) for name, variable in running.items()}
            return apply_statistics(
                x, **now, scale=scale, bias=bias, epsilon=self.epsilon, relu=relu
            )
        y, mean, var = normalize(x, scale, bias, self.epsilon, relu)
        if not self.is_initializing():
            self._update(running["mean"], mean, t)
            self._update(running["var"], var, t)
        return y

    def _update(self, variable, value: Array, t: Array | int) -> None:
        old = _of_round(variable.value, t)
        new = self.momentum * old + (1 - self.momentum) * value
        variable.value = new if variable.value.ndim == 1 else variable.value.at[t].set(new)


def _of_round(values: Array, t: Array | int) -> Array:
    """The entry of round t where there is one per round."""
    return values if values.ndim == 1 else jnp.asarray(values)[t]


class NormConfig(NamedTuple):
    """How the normalizations of a network are made."""

    rounds: int
    mode: str
    momentum: float
    epsilon: float

    def build(self, name: str) -> RoundNorm:
        """A normalization of that name; call it in a compact method."""
        return RoundNorm(*self, name=name)
