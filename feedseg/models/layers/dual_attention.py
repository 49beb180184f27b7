"""The decoder block of SAUNet: fusion with the skip, then attention over channels and pixels.

Sun et al., SAUNet: Shape Attentive U-Net for Interpretable Medical Image Segmentation (MICCAI
2020), section 2.2; details from the released code (sunjesse/shape-attentive-unet).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import ConvNormAct, squeeze_excite
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.shapes import check

Array = jax.Array

NARROWING = 4  # channels per channel inside the spatial attention


class ChannelAttention(nn.Module):
    """`squeeze_excite` with biases, under a name of its own."""

    initializer: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return squeeze_excite(x, self.initializer)


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
        check("DualAttention", deep=(deep, "N h w C"), skip=(skip, "N 2h 2w S"))
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
