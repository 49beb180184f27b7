"""Convolution + batch normalization + ReLU, dropout, squeeze and excitation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.batch_norm import BatchNorm
from feedseg.models.layers.conv import Conv, UpConv

Array = jax.Array


def keep_mask(key: Array, shape: tuple[int, ...], rate: float) -> Array:
    """Independent booleans of a shape [..., W, C], true with probability `1 - rate`.

    A rate that is a multiple of 1/2, 1/4, 1/16 or 1/256 takes 1, 2, 4 or 8 random bits per value,
    cut from 32-bit words: at 0.5 a thirtieth of the work of one random float per value, which on
    the CPU would cost more than the convolutions. The probability is exact.
    """
    bits = next((b for b in (1, 2, 4, 8) if (rate * 2**b).is_integer()), None)
    if bits is None:
        return jax.random.bernoulli(key, 1 - rate, shape)
    *lead, width, channels = shape
    count = width * channels
    words = jax.random.bits(key, (*lead, -(-count * bits // 32)), jnp.uint32)
    fields = words[..., None] >> jnp.arange(0, 32, bits, dtype=jnp.uint32) & (2**bits - 1)
    return fields.reshape(*lead, -1)[..., :count].reshape(shape) >= jnp.uint32(rate * 2**bits)


class Dropout(nn.Module):
    """Each value is zeroed with probability `rate`, the others are divided by `1 - rate`."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        kept = keep_mask(self.make_rng("dropout"), x.shape, self.rate)
        return jnp.where(kept, x / (1 - self.rate), 0).astype(x.dtype)


class ConvNormAct(nn.Module):
    """Convolution (or transposed convolution), batch normalization, ReLU.

    up: a transposed convolution with stride 2; momentum: weight of the old running average.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    up: bool = False
    use_bias: bool = True
    initializer: str = "torch"
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if self.up:
            layer = UpConv(self.features, self.kernel_size, True, self.initializer, name="conv")
        else:
            layer = Conv(
                self.features,
                self.kernel_size,
                self.stride,
                self.use_bias,
                before_norm=True,
                initializer=self.initializer,
                name="conv",
            )
        norm = BatchNorm(self.momentum, self.epsilon, relu=True, name="norm")
        return norm(layer(x), train=train)


GAMMA_SPREAD = 0.02  # standard deviation of the normalizations' initial scales around 1


def _gamma_init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return 1 + GAMMA_SPREAD * jax.random.normal(key, shape, dtype)


class HeConvNorm(nn.Module):
    """Convolution and batch normalization, with `act` ReLU, that start as He et al. (2015) have it.

    Kernels N(0, 2 / fan_in), scales N(1, 0.02), biases 0: the start in the released code of
    Attention U-Net and of UNet 3+. momentum: weight of the old running average.
    """

    features: int
    kernel_size: int
    act: bool
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        conv = Conv(
            self.features, self.kernel_size, before_norm=True, initializer="he", name="conv"
        )
        norm = BatchNorm(self.momentum, self.epsilon, self.act, _gamma_init, name="norm")
        return norm(conv(x), train=train)


def squeeze_excite(x: Array, initializer: str, use_bias: bool = True) -> Array:
    """`x s(W2 ReLU(W1 mean_hw x + b1) + b2)`, C / 16 hidden units (at least 1), s the sigmoid.

    Call it in a compact method; its layers are fc1 and fc2.
    Source: Hu et al., Squeeze-and-Excitation Networks (CVPR 2018), Eqs. 2-4.
    """

    def layer(y: Array, features: int, name: str) -> Array:
        return Conv(features, 1, use_bias=use_bias, initializer=initializer, name=name)(y)

    channels = x.shape[-1]
    hidden = nn.relu(layer(x.mean((1, 2), keepdims=True), max(1, channels // 16), "fc1"))
    return x * nn.sigmoid(layer(hidden, channels, "fc2"))
