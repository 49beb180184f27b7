"""RU-Net and R2U-Net: a U-Net of recurrent convolutional layers.

The plain `unet` with a recurrent unit in the place of each pair of convolutions:

    shared, unshared_per_step:  y = P * x (1x1);  u = R2(R1(y));  residual: y + u
    separate:                   u = R2(R1(x));                    residual: P * x + u

R1, R2: `feedback.recurrent_conv.RecurrentConv`. image [N, H, W, C] -> logits [N, H, W, K].
Alom et al., Recurrent Residual Convolutional Neural Network based on U-Net (2018); layers as in
LeeJunHyun/Image_Segmentation and, without residual, navamikairanda/R2U-Net. Feedback U-Net (2020)
compares with "RU-Net", time-step 2: read as without residual, in its own widths and layers;
configs/baseline.py has Lee's R2U-Net as model=r2u_net.
"""

from functools import partial

import flax.linen as nn
import jax

from feedseg.models.feedback.recurrent_conv import RecurrentConv
from feedseg.models.feedback.round_norm import NormConfig
from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.network import Network
from feedseg.models.layers.resize import nearest2
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Network):
    """RU-Net or, with `residual`, R2U-Net. up=`nearest` (Lee): nearest pixel, conv3, BN, ReLU."""

    filters: tuple[int, ...] = (8, 16, 32, 64, 128)  # this and the next five as in `unet`
    dropout: float = 0.5
    conv_bias: bool = True
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    initializer: str = "keras"  # keras | torch
    kernel: str = "shared"  # shared | separate | unshared_per_step: weights of the passes
    t: int = 2  # passes after the first
    residual: bool = False  # add what enters the recurrent layers of a block
    up: str = "deconv"  # deconv | nearest: 2x2 transposed, or nearest pixel and a 3x3 convolution
    pass_norms: str = "shared"  # shared | separate: normalizations of the passes

    @property
    def reach(self) -> int:
        reach = encoder_decoder.reach(self.filters, lambda name: self.t + 1)
        return reach + (self.stride - 1 if self.up == "nearest" else 0)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        if self.up not in ("deconv", "nearest"):
            raise ValueError(f"up={self.up!r}: choose deconv or nearest")

        unit, up = partial(self._unit, train=train), encoder_decoder.up_conv(self.initializer)
        if self.up == "nearest":
            up = partial(self._nearest_up, train=train)
        parts = encoder_decoder.UnetParts(unit, up, train, self.dropout)
        x = encoder_decoder.u_net(parts, image, self.filters)
        return Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(x), {}

    def _unit(self, x: Array, features: int, name: str, train: bool) -> Array:
        norms = NormConfig(1, "shared", self.bn_momentum, self.bn_epsilon)
        projected = None
        if self.kernel != "separate" or self.residual:
            projected = Conv(
                features, 1, 1, self.conv_bias, initializer=self.initializer, name=f"{name}_project"
            )(x)
        u = x if self.kernel == "separate" else projected
        for index in (1, 2):
            layer = RecurrentConv(
                features,
                self.kernel,
                self.t,
                norms,
                self.conv_bias,
                self.initializer,
                pointwise=False,
                pass_norms=self.pass_norms,
                name=f"{name}_recurrent{index}",
            )
            u = layer(u, train=train)
        return projected + u if self.residual else u

    def _nearest_up(self, x: Array, features: int, name: str, train: bool) -> Array:
        kind = dict(use_bias=self.conv_bias, initializer=self.initializer)
        return self.conv_norm_act(nearest2(x), features, name, train=train, **kind)
