"""The original U-Net: convolutions without padding, no normalization, 64 to 1024 channels.

    e_l = B(pool(e_{l-1})),  d_l = B([crop(e_l), up(d_{l+1})]),  logits = P d_1
    B: [valid conv3, ReLU] twice;  up: transposed 2x2, ReLU
    sides 572 -> 570 -> 568 | 284 -> ... -> 28 | 56 -> ... | 392 -> 390 -> 388

image [N, H, W, C] -> logits [N, H, W, K]. Ronneberger, Fischer & Brox, U-Net: Convolutional
Networks for Biomedical Image Segmentation (2015), Fig. 1 and section 3. Places of the dropout and
the ReLU after the up-convolutions are those of the authors' Caffe network. Kernels start as
N(0, 2 / fan_in).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.conv import Conv, UpConv
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check, check_image

Array = jax.Array


class Model(Network):
    """Two unpadded 3x3 convolutions per block; skips are cut to the center, joined as [skip, up].

    border: `mirror`: the image continues as its mirror image (overlap-tile strategy) so that every
    pixel gets a result. `none`: the network as it is: `margin` pixels (92 for five levels) on each
    side get no result, and sides are refused unless every pooled map has even sides
    (`legal_sides`).
    """

    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels per level
    dropout: float = 0.5  # rate after the last level above the bottom and after the bottom
    up_activation: bool = True  # ReLU after the up-convolutions
    border: str = "mirror"  # mirror | none

    @property
    def margin(self) -> int:
        """Pixels on each side of the input that lie outside the output."""
        return 6 * self.stride - 4

    @property
    def reach(self) -> int:
        return encoder_decoder.reach(self.filters)

    def legal_sides(self, side: int) -> tuple[int, ...]:
        """The largest legal side up to `side` (none if there is none) and the smallest above."""
        least, step = 12 * self.stride - 4, self.stride
        below = least + (side - least) // step * step
        return tuple(s for s in (below, below + step) if s >= least) or (least,)

    def _check_legal(self, image: Array) -> None:
        height, width = image.shape[1:3]
        if all(self.legal_sides(side)[0] == side for side in (height, width)):
            return
        near = ", ".join(
            f"{side}: {' or '.join(map(str, self.legal_sides(side)))}" for side in (height, width)
        )
        raise ValueError(
            f"image sides {height} x {width} do not fit unpadded convolutions with poolings to "
            f"even sides; nearest legal ones: {near} (the result is {2 * self.margin} px smaller)"
        )

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        if self.border == "none":
            check("network", image=(image, "N H W C"))
            self._check_legal(image)
            return self._network(image, train), {}
        if self.border != "mirror":
            raise ValueError(f"border={self.border!r}: choose mirror or none")
        check_image(image, self.stride)
        height, width = image.shape[1:3]
        # 4 px more, cut off again, make the sides legal
        around = (self.margin, self.margin + 4)
        wide = jnp.pad(image, ((0, 0), around, around, (0, 0)), mode="reflect")
        return self._network(wide, train)[:, :height, :width], {}

    def _network(self, image: Array, train: bool) -> Array:
        def conv(x: Array, features: int, name: str) -> Array:
            return nn.relu(Conv(features, 3, initializer="he", valid=True, name=name)(x))

        def up(x: Array, features: int, name: str) -> Array:
            x = UpConv(features, initializer="he", name=name)(x)
            return nn.relu(x) if self.up_activation else x

        parts = encoder_decoder.UnetParts(
            encoder_decoder.pair(conv), up, train, self.dropout, _join
        )
        x = encoder_decoder.u_net(parts, image, self.filters)
        return Conv(self.num_classes, 1, initializer="he", name="classifier")(x)


def _join(skip: Array, up: Array) -> Array:
    """[the middle of the skip, up]."""
    height, width = up.shape[1:3]
    top, left = (skip.shape[1] - height) // 2, (skip.shape[2] - width) // 2
    return jnp.concatenate([skip[:, top : top + height, left : left + width], up], -1)
