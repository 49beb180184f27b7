"""The decoder block of SAUNet: fusion with the skip, then attention over channels and pixels.

Sun et al., SAUNet: Shape Attentive U-Net for Interpretable Medical Image Segmentation (MICCAI
2020), section 2.2; details from the released code (sunjesse/shape-attentive-unet).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import ConvNormAct
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.shapes import check_maps

Array = jax.Array

REDUCTION = 16  # channels per hidden unit of the channel attention
NARROWING = 4  # channels per channel inside the spatial attention


class ChannelAttention(nn.Module):
    """Squeeze and excitation: `x s(W2 ReLU(W1 mean_hw x + b1) + b2)`, C / 16 hidden units.

    s: sigmoid. At least one hidden unit.
    Source: Hu et al., Squeeze-and-Excitation Networks (CVPR 2018), Eqs. 2-4.
    """

    initializer: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_maps(x=x)
        channels = x.shape[-1]
        hidden = max(1, channels // REDUCTION)
        squeezed = x.mean((1, 2), keepdims=True)
        squeezed = nn.relu(Conv(hidden, 1, initializer=self.initializer, name="fc1")(squeezed))
        return x * nn.sigmoid(Conv(channels, 1, initializer=self.initializer, name="fc2")(squeezed))


class DualAttention(nn.Module):
    """`y = SE(f) (1 + a)` from a deep map [N, h, w, C] and the skip [N, 2h, 2w, S].

        f = ReLU(BN(conv3([skip, ReLU(BN(deconv4(deep)))]))), deconv4 keeps the C channels
        a = s(conv1(ReLU(BN(conv1(f))))), F / 4 channels between, one at the end
        SE: see ChannelAttention

    features: F, at least 4. momentum: weight of the old running average.
    """

    features: int
    initializer: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, deep: Array, skip: Array, *, train: bool) -> Array:
        kind = dict(initializer=self.initializer, momentum=self.momentum, epsilon=self.epsilon)
        up = ConvNormAct(deep.shape[-1], 4, up=True, name="up", **kind)(deep, train=train)
        fused = ConvNormAct(self.features, name="fuse", **kind)(
            jnp.concatenate([skip, up], -1), train=train
        )
        inner = ConvNormAct(
            self.features // NARROWING, 1, use_bias=False, name="spatial_down", **kind
        )(fused, train=train)
        spatial = nn.sigmoid(Conv(1, 1, initializer=self.initializer, name="spatial")(inner))
        return ChannelAttention(self.initializer, name="channel")(fused) * (1 + spatial)
