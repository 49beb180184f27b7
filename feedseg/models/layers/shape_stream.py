"""The shape stream of SAUNet: an edge map at full resolution, gated by the encoder's maps.

Sun et al., SAUNet (MICCAI 2020), section 2.1, after Takikawa et al., Gated-SCNN (ICCV 2019);
details from the released code (sunjesse/shape-attentive-unet).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.batch_norm import BatchNorm
from feedseg.models.layers.blocks import ConvNormAct
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.resize import bilinear
from feedseg.models.layers.shapes import check

Array = jax.Array


class ResidualBlock(nn.Module):
    """`ReLU(x + BN(conv3(ReLU(BN(conv3(x))))))`, no biases, channels kept.

    Source: He et al., Deep Residual Learning (CVPR 2016), Fig. 2.
    """

    initializer: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        kind = dict(momentum=self.momentum, epsilon=self.epsilon)
        features = x.shape[-1]
        first = ConvNormAct(
            features, use_bias=False, initializer=self.initializer, name="conv1", **kind
        )
        second = Conv(features, use_bias=False, initializer=self.initializer, name="conv2")
        norm = BatchNorm(name="norm2", **kind)
        return nn.relu(x + norm(second(first(x, train=train)), train=train))


class GatedConv(nn.Module):
    """`y = W (x (1 + a))`, `a = s(BN(P2 ReLU(P1 BN([x, t]))))`, no bias in W.

    x [N, H, W, n], texture map t [N, H, W, 1]; W, P1 (n + 1 channels) and P2 (one channel) are
    1x1 convolutions, s the sigmoid.
    Source: Gated-SCNN (2019), Eqs. 1-2; SAUNet (2020), section 2.1.
    """

    initializer: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, texture: Array, *, train: bool) -> Array:
        check("GatedConv", x=(x, "N H W C"), texture=(texture, "N H W 1"))

        def norm(x: Array, name: str) -> Array:
            return BatchNorm(self.momentum, self.epsilon, name=name)(x, train=train)

        features = x.shape[-1]
        both = norm(jnp.concatenate([x, texture], -1), "norm1")
        hidden = Conv(features + 1, 1, initializer=self.initializer, name="conv1")(both)
        gate = Conv(1, 1, before_norm=True, initializer=self.initializer, name="conv2")
        weight = nn.sigmoid(norm(gate(nn.relu(hidden)), "norm2"))
        out = Conv(features, 1, use_bias=False, initializer=self.initializer, name="out")
        return out(x * (1 + weight))


class ShapeStream(nn.Module):
    """Logits of the edge map, [N, H, W, 1], of the encoder's maps c2, c3, c4, c5.

        x = up(conv1(c2))
        x = gate(conv1(residual(x)), up(conv1(c))) for c = c3, c4, c5
        edge = conv1(x), no bias

    filters: channels of x, the first ones and behind every gate. up: bilinear to height x width
    px, outer pixels coincide. Source: SAUNet (2020), Fig. 1.
    """

    filters: Sequence[int]
    initializer: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, maps: Sequence[Array], height: int, width: int, *, train: bool) -> Array:
        check("ShapeStream", **{f"c{i}": (x, f"N H{i} W{i} C{i}") for i, x in enumerate(maps, 2)})
        kind = (self.initializer, self.momentum, self.epsilon)

        def conv(x: Array, features: int, name: str, before_norm: bool = False) -> Array:
            layer = Conv(
                features, 1, before_norm=before_norm, initializer=self.initializer, name=name
            )
            return layer(x)

        def up(x: Array) -> Array:
            return bilinear(x, height, width, align_corners=True)

        first, *others = maps
        x = up(conv(first, self.filters[0], "reduce0"))
        for index, (texture, features) in enumerate(zip(others, self.filters[1:], strict=True), 1):
            x = ResidualBlock(*kind, name=f"residual{index}")(x, train=train)
            x = conv(x, features, f"reduce{index}")
            t = up(conv(texture, 1, f"texture{index}_conv", before_norm=True))
            x = GatedConv(*kind, name=f"gate{index}")(x, t, train=train)
        return Conv(1, 1, use_bias=False, initializer=self.initializer, name="edge")(x)
