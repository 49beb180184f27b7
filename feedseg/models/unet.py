"""The plain U-Net of the Feedback U-Net paper: padded, with batch normalization, any widths.

Feedback U-Net (2020), section 2.1; details from its first author's released code
(ggEisuke/Feedback-U-Net) with the ConvLSTMs left out.
"""

import flax.linen as nn
import jax

from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.blocks import ConvNormAct
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.pyramid import Pyramid
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Pyramid):
    """Encoder of `len(filters)` levels, decoder with skips, classifier.

    filters: channels per level from the top, the last is the bottom. dropout: rate after the last
    level above the bottom (into the skip and the pool) and after the bottom. extra_conv: one more
    convolution before the classifier. conv_bias: bias under the normalizations. Concatenation is
    [skip, up]. Image sides must be multiples of 2^(levels - 1).
    """

    num_classes: int
    filters: tuple[int, ...] = (8, 16, 32, 64, 128)  # channels per level, the last is the bottom
    dropout: float = 0.5  # rate after level 4 and the bottom
    extra_conv: bool = False  # one more convolution before the classifier
    conv_bias: bool = True  # bias of the convolutions that a normalization follows
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    initializer: str = "keras"  # keras | torch

    @property
    def reach(self) -> int:
        return encoder_decoder.reach(self.filters, lambda name: 1, self.extra_conv)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)

        def conv(x: Array, features: int, name: str) -> Array:
            layer = ConvNormAct(
                features,
                use_bias=self.conv_bias,
                initializer=self.initializer,
                momentum=self.bn_momentum,
                epsilon=self.bn_epsilon,
                name=name,
            )
            return layer(x, train=train)

        parts = encoder_decoder.Parts(conv, self.dropout, self.initializer, train)
        top = parts.pair(image, self.filters[0], encoder_decoder.first_block(self.filters))
        x = encoder_decoder.below(parts, top, self.filters, self.extra_conv)
        return Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(x), {}
