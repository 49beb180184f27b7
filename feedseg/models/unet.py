"""The plain U-Net of the Feedback U-Net paper: padded, with batch normalisation, any widths.

Feedback U-Net (2020), section 2.1; details from its first author's released code
(ggEisuke/Feedback-U-Net) with the ConvLSTMs left out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.layers.blocks import ConvNormAct, Dropout
from feedseg.layers.conv import Conv, UpConv, check_sides, max_pool2

Array = jax.Array


class Model(nn.Module):
    """Encoder of `len(filters)` levels, decoder with skips, classifier.

    filters: channels per level from the top, the last is the bottom. dropout: rate after the last
    level above the bottom (into the skip and the pool) and after the bottom. extra_conv: one more
    convolution before the classifier. conv_bias: bias under the normalisations. Concatenation is
    [skip, up]. Image sides must be multiples of 2^(levels - 1).
    """

    num_classes: int
    filters: tuple[int, ...]
    dropout: float
    extra_conv: bool
    conv_bias: bool
    bn_momentum: float
    bn_epsilon: float
    initializer: str

    @property
    def stride(self) -> int:
        return 2 ** (len(self.filters) - 1)

    @property
    def halo(self) -> int:
        # two 3x3 convolutions on every way through a level, and a pooling window below each
        convolutions = 2 * self.stride + 4 * (self.stride - 1) + int(self.extra_conv)
        reach = convolutions + self.stride - 1
        return -(-reach // self.stride) * self.stride

    def _pair(self, x: Array, features: int, name: str, train: bool) -> Array:
        for index in (1, 2):
            x = self._conv(features, f"{name}_conv{index}")(x, train=train)
        return x

    def _conv(self, features: int, name: str) -> ConvNormAct:
        return ConvNormAct(
            features,
            use_bias=self.conv_bias,
            initializer=self.initializer,
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            name=name,
        )

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_sides(image, self.stride)
        *widths, bottom = self.filters
        x, skips = image, []
        for level, features in enumerate(widths, 1):
            x = self._pair(x, features, f"enc{level}", train)
            if level == len(widths):
                x = Dropout(self.dropout, name=f"enc{level}_dropout")(x, train=train)
            skips.append(x)
            x = max_pool2(x)
        x = self._pair(x, bottom, "bottom", train)
        x = Dropout(self.dropout, name="bottom_dropout")(x, train=train)
        for level in range(len(widths), 0, -1):
            features = widths[level - 1]
            up = UpConv(features, initializer=self.initializer, name=f"dec{level}_up")(x)
            x = self._pair(
                jnp.concatenate([skips[level - 1], up], -1), features, f"dec{level}", train
            )
        if self.extra_conv:
            x = self._conv(widths[0], "extra_conv")(x, train=train)
        return Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(x), {}
