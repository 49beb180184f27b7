"""UNet 3+: a U-Net whose decoder levels each see all encoder levels and all deeper decoder levels.

    D(L) = E(L),  D(d) = H([C(pool(E(1))), ..., C(E(d)), C(up(D(d + 1))), ..., C(up(D(L)))])

with L levels, C and H a 3x3 convolution, batch normalization and ReLU; image [N, H, W, C] -> logits
[N, H, W, K]. UNet 3+ (Huang et al., 2020), Eq. 1; details from the authors' released code
(ZJUGiveLab/UNet-Version). Deep supervision is off as AEP (2024) mentions none.
Deviation: the classifiers' biases start at 0, not at PyTorch's uniform numbers. The
classification-guided module is left out: it only tells images with an organ from those without.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import resize
from feedseg.models.layers.blocks import HeConvNorm
from feedseg.models.layers.conv import Conv, max_pool2
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Network):
    """Encoder of two convolutions per level, full-scale decoder, 3x3 classifier on its top level.

    A decoder level joins L maps, shallow encoder levels first, the bottom last, and has L times
    skip_channels. Pooling by 2, 4, 8; up-sampling is bilinear without align_corners, before the
    convolution. Sides are multiples of the stride, so that the original's rounding up of pooled
    sizes never matters.

    out: with deep_supervision `heads` [levels, N, H, W, K], up-sampled logits, top first, the
    bottom last. The logits are the top one's.
    """

    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels per level
    skip_channels: int = 64  # of each of the maps that a decoder level joins
    deep_supervision: bool = False  # a 3x3 classifier on every decoder level and the bottom
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    @property
    def reach(self) -> int:
        # per level 2 convolutions down, 2 up, bilinear weights that see 1 px more and a pooling
        # window; 2 convolutions at the bottom; the classifier
        return 6 * (self.stride - 1) + 2 * self.stride + 1

    def _layer(self, x: Array, features: int, name: str, train: bool) -> Array:
        layer = HeConvNorm(features, 3, True, self.bn_momentum, self.bn_epsilon, name=name)
        return layer(x, train=train)

    def _encode(self, x: Array, train: bool) -> list[Array]:
        """The encoder's levels, the bottom last."""
        maps = []
        for level, features in enumerate(self.filters, 1):
            block = f"enc{level}" if level < len(self.filters) else "bottom"
            x = max_pool2(maps[-1]) if maps else x
            for index in (1, 2):
                x = self._layer(x, features, f"{block}_conv{index}", train)
            maps.append(x)
        return maps

    def _decode(self, sources: list[Array], level: int, train: bool) -> Array:
        """Decoder level; sources: the maps of all levels, of the decoder where deeper than it."""
        side = sources[level - 1].shape[1:3]
        joined = []
        for source, x in enumerate(sources, 1):
            for _ in range(source, level):
                x = max_pool2(x)
            if source > level:
                x = resize.bilinear(x, *side, align_corners=False)
            joined.append(self._layer(x, self.skip_channels, f"dec{level}_from{source}", train))
        width = self.skip_channels * len(sources)
        return self._layer(jnp.concatenate(joined, -1), width, f"dec{level}_fuse", train)

    def _head(self, x: Array, name: str) -> Array:
        return Conv(self.num_classes, initializer="he", name=name)(x)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        check_image(image, self.stride)
        maps = self._encode(image, train)
        for level in range(len(maps) - 1, 0, -1):
            maps[level - 1] = self._decode(maps, level, train)
        logits = self._head(maps[0], "classifier")
        if not self.deep_supervision:
            return logits, {}
        heads = [logits]
        for level, x in enumerate(maps[1:], 2):
            x = self._head(x, f"head{level}")
            heads.append(resize.bilinear(x, *image.shape[1:3], align_corners=False))
        return logits, {"heads": jnp.stack(heads)}
