"""The plain U-Net of the Feedback U-Net paper: padded, with batch normalization, any widths.

    e_l = B(pool(e_{l-1})),  d_l = B([e_l, up(d_{l+1})]),  logits = P d_1
    B: [conv3, BN, ReLU] twice;  up: transposed 2x2

image [N, H, W, C] -> logits [N, H, W, K]. Feedback U-Net (2020), section 2.1; the paper's own
baseline was not released, so details are those of the first author's feedback network
(ggEisuke/Feedback-U-Net) without ConvLSTMs. Open there: whether the baseline has the convolution
before the classifier (`extra_conv`; here not) and dropout (here as in the released code).
"""

from functools import partial

import flax.linen as nn
import jax

from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.encoder_decoder import UnetParts, pair, up_conv
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Network):
    """Encoder of `len(filters)` levels, decoder with skips [skip, up], classifier."""

    filters: tuple[int, ...] = (8, 16, 32, 64, 128)  # channels per level, the last is the bottom
    dropout: float = 0.5  # rate after the last level above the bottom and after the bottom
    extra_conv: bool = False  # one more convolution before the classifier
    conv_bias: bool = True  # bias of the convolutions that a normalization follows
    bn_momentum: float = 0.99  # weight of the old running average
    bn_epsilon: float = 1e-3
    initializer: str = "keras"  # keras | torch

    @property
    def reach(self) -> int:
        return encoder_decoder.reach(self.filters) + self.extra_conv

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        kind = dict(use_bias=self.conv_bias, initializer=self.initializer)
        conv = partial(self.conv_norm_act, train=train, **kind)
        parts = UnetParts(pair(conv), up_conv(self.initializer), train, self.dropout)
        x = encoder_decoder.u_net(parts, image, self.filters)
        if self.extra_conv:
            x = conv(x, self.filters[0], "extra_conv")
        return Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(x), {}
