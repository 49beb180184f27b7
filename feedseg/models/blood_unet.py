"""The blood-cell U-Net: a third convolution before each pooling, one sigmoid output.

    e_l = B3(pool(e_{l-1})),  d_l = B2([e_l, up(d_{l+1})]),  z = conv3(d_1)
    Bn: [conv3, ReLU] n times

image [N, H, W, C] -> logits [N, H, W, K]; for two classes the logits are [0, z], whose softmax is
(1 - sigmoid(z), sigmoid(z)) and whose cross-entropy is the binary one.
Elkhazraje, Blood Cell Segmentation Using U-Net and Convolutional Neural Network, sections 3 and 4;
not released. Widths are not printed: those of the original U-Net are taken.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Network):
    """Padded U-Net without normalization; the last layer is a 3x3 convolution.

    More than two classes have one output each.
    """

    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels per level
    extra_conv: bool = True  # the paper's third convolution, before the pooling and the skip
    initializer: str = "keras"  # keras | torch

    @property
    def reach(self) -> int:
        extra = self.stride - 1 if self.extra_conv else 0
        return encoder_decoder.reach(self.filters) + extra + 1  # and the last layer

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        parts = encoder_decoder.UnetParts(
            self._block, encoder_decoder.up_conv(self.initializer), train
        )
        x = encoder_decoder.u_net(parts, image, self.filters)
        outputs = 1 if self.num_classes == 2 else self.num_classes
        z = Conv(outputs, 3, initializer=self.initializer, name="classifier")(x)
        return (jnp.concatenate([jnp.zeros_like(z), z], -1) if outputs == 1 else z), {}

    def _block(self, x: Array, features: int, name: str) -> Array:
        count = 3 if self.extra_conv and name.startswith("enc") else 2
        for index in range(1, count + 1):
            layer = Conv(features, 3, initializer=self.initializer, name=f"{name}_conv{index}")
            x = nn.relu(layer(x))
        return x
