"""The segmentation network of AEP, used as its network 1 and 2 and, alone, as its baseline.

AEP (2024), Fig. 5; layer sizes from the released code (usagisukisuki/AEP, Net.py).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import ConvNormAct, Dropout
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(nn.Module):
    """Encoder with three stride-2 convolutions, decoder with transposed ones, two output layers.

    Every layer but the last two is conv, batch normalization, ReLU, dropout; skips are taken before
    the dropout and joined as [deep, skip]. penultimate: channels of the map before the classifier,
    which `out["penultimate"]` holds after its ReLU. Image sides must be multiples of 8.
    """

    num_classes: int
    penultimate: int = 16  # channels of the map before the classifier
    dropout: float = 0.5
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    stride: ClassVar[int] = 8
    # 3x3 kernels reach one pixel of their grid, 4x4 ones 1.5 of the finer grid: 1 + 1.5 + 2 + 3 + 4
    # + 6 down, 8 at the bottom and the same up give 43
    reach: ClassVar[int] = 43  # px
    halo: ClassVar[int] = 48  # to a multiple of 8

    def _layer(self, x: Array, features: int, name: str, train: bool, **kind) -> Array:
        layer = ConvNormAct(
            features, momentum=self.bn_momentum, epsilon=self.bn_epsilon, name=name, **kind
        )
        return layer(x, train=train)

    def _drop(self, x: Array, name: str, train: bool) -> Array:
        return Dropout(self.dropout, name=f"{name}_dropout")(x, train=train)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        down, up = dict(kernel_size=4, stride=2), dict(kernel_size=4, up=True)

        def layer(x, features, name, **kind):
            before = self._layer(x, features, name, train, **kind)
            return before, self._drop(before, name, train)

        _, x = layer(image, 32, "conv1")
        skip2, x = layer(x, 64, "conv2", **down)
        _, x = layer(x, 64, "conv3")
        skip4, x = layer(x, 64, "conv4", **down)
        _, x = layer(x, 64, "conv5")
        skip6, x = layer(x, 128, "conv6", **down)
        _, x = layer(x, 128, "conv7")
        _, x = layer(jnp.concatenate([x, skip6], -1), 64, "deconv1", **up)
        _, x = layer(x, 64, "conv8")
        _, x = layer(jnp.concatenate([x, skip4], -1), 32, "deconv2", **up)
        _, x = layer(x, 32, "conv9")
        _, x = layer(jnp.concatenate([x, skip2], -1), 16, "deconv3", **up)
        penultimate = self._layer(x, self.penultimate, "conv10", train)
        logits = Conv(self.num_classes, 1, name="conv_f")(penultimate)
        return logits, {"penultimate": penultimate}
