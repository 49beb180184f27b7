"""The U-Net with three convolutions per block that AEP's first author uses in other projects.

Facts from usagisukisuki/Adaptive_t-vMF_Dice_loss (ACDC/unet.py); AEP (2024) calls its own networks
lighter than it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import ConvNormAct
from feedseg.models.layers.conv import Conv, max_pool2
from feedseg.models.layers.pyramid import Pyramid
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Pyramid):
    """Three convolutions and a pooling per encoder level, three at the bottom.

    The skip is the pooled map, joined before the transposed convolution as [deep, pooled]; two
    convolutions follow it. No dropout. Image sides must be multiples of 2^(levels - 1).
    """

    num_classes: int
    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    @property
    def reach(self) -> int:
        # 3 convolutions down, 2 up and a pooling window per level, 3 at the bottom
        return 5 * (self.stride - 1) + 3 * self.stride + self.stride - 1

    def _layer(self, x: Array, features: int, name: str, train: bool, **kind) -> Array:
        layer = ConvNormAct(
            features, momentum=self.bn_momentum, epsilon=self.bn_epsilon, name=name, **kind
        )
        return layer(x, train=train)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        *widths, bottom = self.filters
        x, pooled = image, []
        for level, features in enumerate(widths, 1):
            for index in (1, 2, 3):
                x = self._layer(x, features, f"enc{level}_conv{index}", train)
            x = max_pool2(x)
            pooled.append(x)
        for index in (1, 2, 3):
            x = self._layer(x, bottom, f"bottom_conv{index}", train)
        for level in range(len(widths), 0, -1):
            features = widths[level - 1]
            x = jnp.concatenate([x, pooled[level - 1]], -1)
            x = self._layer(x, features, f"dec{level}_up", train, kernel_size=2, up=True)
            for index in (1, 2):
                x = self._layer(x, features, f"dec{level}_conv{index}", train)
        return Conv(self.num_classes, 1, name="classifier")(x), {}
