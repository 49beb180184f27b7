"""The original U-Net: convolutions without padding, no normalization, 64 to 1024 channels.

Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation (2015),
Fig. 1 and section 3. Places of the dropout and the ReLU after the up-convolutions are those of the
authors' Caffe network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import Dropout
from feedseg.models.layers.conv import Conv, UpConv, max_pool2
from feedseg.models.layers.pyramid import Pyramid
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Pyramid):
    """Two unpadded 3x3 convolutions per block; a level down halves, a level up doubles the map.

        sides 572 -> 570 -> 568 | 284 -> ... -> 28 | 56 -> ... | 392 -> 390 -> 388

    filters: channels per level from the top, the last is the bottom. dropout: rate after the last
    level above the bottom (into the skip and the pool) and after the bottom. up_activation: ReLU
    after the up-convolutions. Skips are cut to the center and joined as [skip, up]. Kernels start
    as N(0, 2 / fan_in).
    border: `mirror`: the image continues as its mirror image (overlap-tile strategy) so that every
    pixel gets a result; sides must be multiples of 2^(levels - 1). `none`: the network as it is:
    `margin` pixels (92 for five levels) on each side get no result, and sides are refused unless
    every pooled map has even sides (`legal_sides`).
    """

    num_classes: int
    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)
    dropout: float = 0.5
    up_activation: bool = True  # ReLU after the up-convolutions, as in the authors' Caffe network
    border: str = "mirror"  # mirror: a result for every pixel | none: 92 px less on each side

    @property
    def margin(self) -> int:
        """Pixels on each side of the input that lie outside the output."""
        return 6 * self.stride - 4

    @property
    def reach(self) -> int:
        # 4 convolutions per level, 2 at the bottom, and a pooling window below each level
        return 4 * (self.stride - 1) + 2 * self.stride + self.stride - 1

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

    def _pair(self, x: Array, features: int, block: str) -> Array:
        for index in (1, 2):
            layer = Conv(features, 3, initializer="he", valid=True, name=f"{block}_conv{index}")
            x = nn.relu(layer(x))
        return x

    def _drop(self, x: Array, block: str, train: bool) -> Array:
        return Dropout(self.dropout, name=f"{block}_dropout")(x, train=train)

    def _network(self, x: Array, train: bool) -> Array:
        *widths, bottom = self.filters
        skips = []
        for level, features in enumerate(widths, 1):
            x = self._pair(x, features, f"enc{level}")
            if level == len(widths):
                x = self._drop(x, f"enc{level}", train)
            skips.append(x)
            x = max_pool2(x)
        x = self._drop(self._pair(x, bottom, "bottom"), "bottom", train)
        for level in range(len(widths), 0, -1):
            up = UpConv(widths[level - 1], initializer="he", name=f"dec{level}_up")(x)
            up = nn.relu(up) if self.up_activation else up
            joined = jnp.concatenate([center(skips[level - 1], up.shape[1:3]), up], -1)
            x = self._pair(joined, widths[level - 1], f"dec{level}")
        return Conv(self.num_classes, 1, initializer="he", name="classifier")(x)


def center(x: Array, sides: tuple[int, int]) -> Array:
    """The middle of [N, H, W, C] with these sides."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], sides, strict=True))
    return x[:, top : top + sides[0], left : left + sides[1]]
