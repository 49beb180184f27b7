"""Batch normalization, with ReLU where one follows, in few passes over the maps.

Differentiated step by step it reads every map a dozen times; written out, its gradient takes two
passes.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from feedseg.models.layers.convolve import channel_mean
from feedseg.models.layers.shapes import check

Array = jax.Array


def _affine(x: Array, mean: Array, factor: Array, bias: Array, relu: bool) -> Array:
    y = (x - mean) * factor + bias
    return nn.relu(y) if relu else y


def apply_statistics(
    x: Array, mean: Array, var: Array, scale: Array, bias: Array, epsilon: float, relu: bool
) -> Array:
    """`scale (x - mean) / sqrt(var + epsilon) + bias` by given statistics, in float32 inside."""
    factor = lax.rsqrt(var + epsilon) * scale.astype(jnp.float32)
    return _affine(x, mean, factor, bias, relu).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(x: Array, scale: Array, bias: Array, epsilon: float, relu: bool):
    """Each channel normalized by its mean and variance over all pixels of the batch.

        y = scale (x - mean) / sqrt(var + epsilon) + bias, max(y, 0) with `relu`

    x [..., C], scale and bias [C]. Returns y like x, and mean and (biased) variance [C] in float32,
    which are for running averages: no gradient passes through these two.
    """
    return _forward(x, scale, bias, epsilon, relu)[0]


def _forward(x, scale, bias, epsilon, relu):
    full = x.astype(jnp.float32)
    mean = channel_mean(full)
    var = channel_mean(jnp.square(full - mean))
    y = apply_statistics(x, mean, var, scale, bias, epsilon, relu)
    return (y, mean, var), (x, mean, var, scale, bias)


def _backward(epsilon, relu, saved, gradients):
    """With x' = (x - mean) / sqrt(var + epsilon) and d = dy, 0 where ReLU cut:

    dbias = sum d,  dscale = sum d x',
    dx = scale / sqrt(var + epsilon) (d - mean(d) - x' mean(d x'))
    """
    x, mean, var, scale, bias = saved
    d = gradients[0].astype(jnp.float32)
    inverse = lax.rsqrt(var + epsilon)
    factor = inverse * scale.astype(jnp.float32)
    if relu:
        d = jnp.where(_affine(x, mean, factor, bias, relu=False) > 0, d, 0)
    unit = (x - mean) * inverse
    bias_mean, scale_mean = channel_mean(d), channel_mean(d * unit)
    dx = factor * (d - bias_mean - unit * scale_mean)
    count = x.size // x.shape[-1]
    of_scale, of_bias = scale_mean * count, bias_mean * count
    return dx.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(bias.dtype)


normalize.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
    """Batch normalization as Flax's, with its names, and ReLU behind it if `relu`.

    In training by the batch's statistics, which enter running averages
    `momentum old + (1 - momentum) new` (biased variance); else by these. Statistics are float32.
    """

    momentum: float
    epsilon: float
    relu: bool = False
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x [..., C] -> the same shape."""
        check("BatchNorm", x=(x, "... C"))
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if not train:
            return apply_statistics(x, mean.value, var.value, scale, bias, self.epsilon, self.relu)
        y, *now = normalize(x, scale, bias, self.epsilon, self.relu)
        if not self.is_initializing():
            for running, value in zip((mean, var), now, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        return y
