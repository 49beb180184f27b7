"""The blood-cell U-Net: a third convolution before each pooling, one sigmoid output.

Elkhazraje, Blood Cell Segmentation Using U-Net and Convolutional Neural Network, sections 3 and 4.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.conv import Conv, UpConv, max_pool2
from feedseg.models.layers.pyramid import Pyramid
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Pyramid):
    """Padded U-Net without normalization; the last layer is a 3x3 convolution.

    filters: channels per level from the top, the last is the bottom. extra_conv: the paper's third
    convolution in every block above the bottom, before its pooling (and its skip).
    For two classes one output z is computed, and the logits are [0, z]: softmax then is
    (1 - sigmoid(z), sigmoid(z)), and their cross-entropy is the binary one. More classes have one
    output each. Image sides must be multiples of 2^(levels - 1).
    """

    num_classes: int
    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)
    extra_conv: bool = True  # a third convolution before each pooling
    initializer: str = "keras"  # keras | torch

    @property
    def reach(self) -> int:
        down = 3 if self.extra_conv else 2
        # convolutions down and up, the bottom's two, a pooling window per level, the last layer
        return (down + 2) * (self.stride - 1) + 2 * self.stride + self.stride - 1 + 1

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        *widths, bottom = self.filters
        x, skips = image, []
        for level, features in enumerate(widths, 1):
            x = self._convs(x, features, f"enc{level}", 3 if self.extra_conv else 2)
            skips.append(x)
            x = max_pool2(x)
        x = self._convs(x, bottom, "bottom", 2)
        for level in range(len(widths), 0, -1):
            up = UpConv(widths[level - 1], initializer=self.initializer, name=f"dec{level}_up")(x)
            x = jnp.concatenate([skips[level - 1], up], -1)
            x = self._convs(x, widths[level - 1], f"dec{level}", 2)
        outputs = 1 if self.num_classes == 2 else self.num_classes
        z = Conv(outputs, 3, initializer=self.initializer, name="classifier")(x)
        return (jnp.concatenate([jnp.zeros_like(z), z], -1) if outputs == 1 else z), {}

    def _convs(self, x: Array, features: int, block: str, count: int) -> Array:
        for index in range(1, count + 1):
            layer = Conv(features, 3, initializer=self.initializer, name=f"{block}_conv{index}")
            x = nn.relu(layer(x))
        return x
