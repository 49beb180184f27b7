"""The segmentation network of AEP, used as its network 1 and 2 and, alone, as its baseline.

    L: [conv, BN, ReLU, dropout]; 4x4 with stride 2 three times down, 4x4 transposed three times up,
    3x3 between;  penultimate = ReLU(BN(conv3(top))),  logits = P penultimate

image [N, H, W, C] -> logits [N, H, W, K]. AEP (2024), Fig. 5; layer sizes from the released code
(usagisukisuki/AEP, Net.py).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import Dropout
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Network):
    """Encoder with three stride-2 convolutions, decoder with transposed ones, two output layers.

    Skips are taken before the dropout and joined as [deep, skip].
    out: `penultimate` [N, H, W, penultimate], the map before the classifier.
    """

    penultimate: int = 16  # channels of the map before the classifier
    dropout: float = 0.5
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    stride: ClassVar[int] = 8
    # 3x3 kernels reach one pixel of their grid, 4x4 ones 1.5 of the finer grid: 1 + 1.5 + 2 + 3 + 4
    # + 6 down, 8 at the bottom and the same up give 43
    reach: ClassVar[int] = 43  # px

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        down, up = dict(kernel_size=4, stride=2), dict(kernel_size=4, up=True)

        def layer(x, features, name, **kind):
            x = self.conv_norm_act(x, features, name, train=train, **kind)
            return x, Dropout(self.dropout, name=f"{name}_dropout")(x, train=train)

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
        penultimate = self.conv_norm_act(x, self.penultimate, "conv10", train=train)
        logits = Conv(self.num_classes, 1, name="conv_f")(penultimate)
        return logits, {"penultimate": penultimate}
