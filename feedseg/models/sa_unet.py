"""SA-UNet: a small U-Net with DropBlock and a spatial attention at the bottom.

    e_l = U(U(pool(e_{l-1}))),  b = U(A(U(pool(e_L)))),  d_l = U(U([up(d_{l+1}), e_l]))
    U: [conv3, DropBlock, BN, ReLU];  A: `SpatialAttention`;  up: transposed 3x3;  logits = P d_1

image [N, H, W, C] -> logits [N, H, W, K]. Guo et al., SA-UNet: Spatial Attention U-Net for Retinal
Vessel Segmentation (ICPR 2020), Fig. 1; details from the released code (clguo/SA-UNet).
AEP (2024) cites this paper for its "SAUNet" but describes another network, `saunet`.
Deviation: softmax over the classes in place of one sigmoid; the convolutions start from he_normal
and not glorot_uniform kernels with initializer="keras".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import encoder_decoder
from feedseg.models.layers import receptive_field as field
from feedseg.models.layers.batch_norm import BatchNorm
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.dropblock import DropBlock, drops
from feedseg.models.layers.network import Network
from feedseg.models.layers.resize import nearest2
from feedseg.models.layers.shapes import check_image

Array = jax.Array

ATTENTION_SIZE = 7  # px, side of the attention's kernel


class Unit(nn.Module):
    """3x3 convolution, DropBlock, batch normalization, ReLU.

    momentum: weight of the old running average.
    """

    features: int
    keep: float
    block: int
    initializer: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        # where squares are dropped the bias does matter to the normalization behind them
        matters = drops(self.keep, self.block, x.shape)
        x = Conv(self.features, before_norm=not matters, initializer=self.initializer, name="conv")(
            x
        )
        x = DropBlock(self.keep, self.block, name="dropblock")(x, train=train)
        norm = BatchNorm(self.momentum, self.epsilon, relu=True, name="norm")
        return norm(x, train=train)


def channel_max(x: Array) -> Array:
    """The largest of the channels, [..., C] -> [..., 1]; of equal ones the first gets the gradient.

    Made of a choice for the reason given at `max_pool2`.
    """
    first = jnp.argmax(jax.lax.stop_gradient(x), -1, keepdims=True)
    return jnp.where(jnp.arange(x.shape[-1]) == first, x, 0).sum(-1, keepdims=True)


class SpatialAttention(nn.Module):
    """`x s(conv7([mean_c x, max_c x]))`, s the sigmoid; and the map s(...), [N, H, W, 1].

    Source: CBAM (Woo et al., 2018), Eq. 3; SA-UNet (2020), Eq. 2.
    """

    initializer: str

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        pooled = jnp.concatenate([x.mean(-1, keepdims=True), channel_max(x)], -1)
        conv = Conv(1, ATTENTION_SIZE, use_bias=False, initializer=self.initializer, name="conv")
        weight = nn.sigmoid(conv(pooled))
        return x * weight, weight


class Model(Network):
    """Encoder, bottom with attention between its two units, decoder, classifier.

    out: with attention, `attention` [1, N, H, W], its map, nearest pixel, a stack of one.
    """

    filters: tuple[int, ...] = (16, 32, 64, 128)  # channels per level
    keep: float = 0.9  # DropBlock: share of values kept (code: 0.82 for DRIVE, 0.87 for CHASE)
    block: int = 7  # DropBlock: side of the squares, px
    attention: bool = True  # False: the paper's backbone
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    initializer: str = "keras"  # keras | torch | he

    @property
    def reach(self) -> int:
        levels = len(self.filters) - 1
        up = [field.conv(count=2), field.up_conv(3)] * levels
        attention = [field.conv(ATTENTION_SIZE)] if self.attention else []
        down = [field.pool2, field.conv(count=2)] * levels
        return field.reach([*up, field.conv(), *attention, field.conv(), *down], self.stride)

    def _enlarged(self, x: Array) -> Array:
        """From the bottom's size to the image's."""
        for _ in self.filters[1:]:
            x = nearest2(x)
        return x

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)

        out = {}

        def unit(x: Array, features: int, name: str) -> Array:
            layer = Unit(
                features,
                self.keep,
                self.block,
                self.initializer,
                self.bn_momentum,
                self.bn_epsilon,
                name=name,
            )
            return layer(x, train=train)

        def block(x: Array, features: int, name: str) -> Array:
            x = unit(x, features, f"{name}_conv1")
            if name == "bottom" and self.attention:
                x, weight = SpatialAttention(self.initializer, name="attention")(x)
                out["attention"] = self._enlarged(weight)[None, ..., 0]
            return unit(x, features, f"{name}_conv2")

        def up_first(skip: Array, up: Array) -> Array:
            return jnp.concatenate([up, skip], -1)

        up = encoder_decoder.up_conv(self.initializer, 3)
        parts = encoder_decoder.UnetParts(block, up, train, join=up_first)
        x = encoder_decoder.u_net(parts, image, self.filters)
        return Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(x), out
