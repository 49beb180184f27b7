"""Convolutions as Flax modules, their initial values, and max-pooling."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import variance_scaling, zeros

from feedseg.models.layers.convolve import add_bias, are_plain, conv2d, product, up_conv2d
from feedseg.models.layers.shapes import check

Array = jax.Array


def _larger(a: Array, b: Array) -> Array:
    """The larger value, NaN if one is NaN; of equal ones the first gets the gradient."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def max_pool2(x: Array) -> Array:
    """2x2 maximum with stride 2: [N, H, W, C] with even sides to [N, H/2, W/2, C].

    Made of `where`, which is also fast on the CPU: the gradient of a maximum over an axis asks
    which values equal it, and is 0 / 0 where a compiler has computed and rounded them twice.
    """
    check("max_pool2", x=(x, "N H W C"))
    n, h, w, c = x.shape
    if are_plain():
        return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    x = x.reshape(n, h // 2, 2, w, c)
    x = _larger(x[:, :, 0], x[:, :, 1]).reshape(n, h // 2, w // 2, 2, c)
    return _larger(x[:, :, :, 0], x[:, :, :, 1])


def kernel_init(style: str, transposed: bool = False) -> Callable:
    """Initial kernels of Keras code (he_normal, glorot_uniform when transposed) or of PyTorch.

    he: N(0, 2 / fan_in), not truncated, as He et al. (2015) have it.
    """
    if style == "he":
        # each output pixel of a transposed kernel with stride 2 sees a quarter of its weights
        return variance_scaling(8.0 if transposed else 2.0, "fan_in", "normal")
    if style == "keras":
        if transposed:
            return variance_scaling(1.0, "fan_avg", "uniform")
        return variance_scaling(2.0, "fan_in", "truncated_normal")
    if style == "torch":
        # PyTorch counts out_channels k^2 as the fan-in of a transposed kernel
        return variance_scaling(1 / 3, "fan_out" if transposed else "fan_in", "uniform")
    raise ValueError(f"initializer={style!r}: choose keras, torch or he")


def bias_init(style: str, fan_in: int) -> Callable:
    """Zeros (Keras, He) or U(-1/sqrt(fan_in), 1/sqrt(fan_in)) (PyTorch)."""
    if style != "torch":
        return zeros
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def _with_bias(y: Array, bias: Array, before_norm: bool) -> Array:
    bias = bias.astype(y.dtype)
    return y + lax.stop_gradient(bias) if before_norm else add_bias(y, bias)


class Conv(nn.Module):
    """Convolution with bias: [N, H, W, C] to [N, H / stride, W / stride, features].

    "Same" padding for odd kernels, (kernel - stride) / 2 for even ones; valid: no padding, the map
    loses (kernel - 1) / 2 pixels on each side.
    before_norm: a batch normalization follows, to which the bias makes no difference; its gradient
    is set to exactly zero, which keeps rounding noise out of it.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = True
    before_norm: bool = False
    initializer: str = "torch"
    valid: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check("Conv", x=(x, "N H W C"))
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.param(
            "kernel", kernel_init(self.initializer), (size, size, channels, self.features)
        )
        side = 0 if self.valid else (size - self.stride + 1) // 2
        if size == 1:
            y = product(x, kernel[0, 0].astype(x.dtype))
        else:
            y = conv2d(x, kernel.astype(x.dtype), self.stride, ((side, side), (side, side)))
        if not self.use_bias:
            return y
        bias = self.param(
            "bias", bias_init(self.initializer, size * size * channels), (self.features,)
        )
        return _with_bias(y, bias, self.before_norm)


class UpConv(nn.Module):
    """Transposed convolution with stride 2 and bias: [N, H, W, C] to [N, 2H, 2W, features].

    kernel_size: 2, 3 or 4 px.
    """

    features: int
    kernel_size: int = 2
    before_norm: bool = False
    initializer: str = "torch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check("UpConv", x=(x, "N H W C"))
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.param(
            "kernel",
            kernel_init(self.initializer, transposed=True),
            (size, size, channels, self.features),
        )
        bias = self.param(
            "bias", bias_init(self.initializer, size * size * self.features), (self.features,)
        )
        y = up_conv2d(x, kernel.astype(x.dtype))
        return _with_bias(y, bias, self.before_norm)
