"""The U-Net with three convolutions per block that AEP's first author uses in other projects.

    e_l = pool(B3(e_{l-1})),  d_l = B2(up([d_{l+1}, e_l])),  logits = P d_1
    Bn: [conv3, BN, ReLU] n times; up: transposed 2x2, BN, ReLU

image [N, H, W, C] -> logits [N, H, W, K]. Source: usagisukisuki/Adaptive_t-vMF_Dice_loss
(ACDC/unet.py). AEP (2024) calls its own networks lighter than "the original U-Net", whose blocks
have three convolutions: this one. What the U-Net in its tables is stays open; `aep_net` alone is
taken as the baseline, this network and a wide `unet` are model=kato3 and model=classic of
configs/aep.py.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.conv import Conv, max_pool2
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Network):
    """Three convolutions and a pooling per encoder level, three at the bottom; no dropout.

    The skip is the pooled map, joined before the transposed convolution as [deep, pooled]; two
    convolutions follow it.
    """

    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels per level
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    @property
    def reach(self) -> int:
        # 3 convolutions down, 2 up and a pooling window per level, 3 at the bottom
        return 5 * (self.stride - 1) + 3 * self.stride + self.stride - 1

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        layer = partial(self.conv_norm_act, train=train)
        *widths, bottom = self.filters
        x, pooled = image, []
        for level, features in enumerate(widths, 1):
            for index in (1, 2, 3):
                x = layer(x, features, f"enc{level}_conv{index}")
            x = max_pool2(x)
            pooled.append(x)
        for index in (1, 2, 3):
            x = layer(x, bottom, f"bottom_conv{index}")
        for level in range(len(widths), 0, -1):
            features = widths[level - 1]
            x = jnp.concatenate([x, pooled[level - 1]], -1)
            x = layer(x, features, f"dec{level}_up", kernel_size=2, up=True)
            for index in (1, 2):
                x = layer(x, features, f"dec{level}_conv{index}")
        return Conv(self.num_classes, 1, name="classifier")(x), {}
