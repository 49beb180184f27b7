"""UNet++: a U-Net whose skips are filled with convolutions, each level joined to all before it.

    X(i, 0) = H(pool(X(i - 1, 0))),  X(i, j) = H([X(i, 0), ..., X(i, j - 1), up(X(i + 1, j - 1))])

for depth i and column j, H two convolutions; the top row ends in the classifier. image [N, H, W, C]
-> logits [N, H, W, K]. UNet++ (Zhou et al., 2018), Eq. 1; details from 4uiiurz1/pytorch-nested-unet
(the default: AEP (2024), which compares with UNet++, works in PyTorch), the authors' Keras code
(MrGiovanni/UNetPlusPlus) and the version that UNet 3+ was compared with (ZJUGiveLab/UNet-Version).
Deep supervision is off as AEP mentions none.
Deviation: zju's transposed kernels start with He's variance for 4 of 16 weights per output,
4 / (16 out) where PyTorch's rule gives 2 / (16 out), and its biases start at 0.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import resize
from feedseg.models.layers.blocks import Dropout, HeConvNorm
from feedseg.models.layers.conv import Conv, UpConv, max_pool2
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array

FORMS = {"torch": "torch", "keras": "keras", "zju": "he"}  # form: initializer


class Model(Network):
    """All nodes X(i, j) with i + j < levels, and a 1x1 classifier on X(0, levels - 1).

    form:
        torch   4uiiurz1: [conv3, BN, ReLU] twice; up: bilinear with align_corners; [X..., up]
        keras   the authors: [conv3, ReLU] twice; up: transposed 2x2; [up, X...]; no normalization.
                Their dropout is 0.5; their L2 penalty of 1e-4 on the kernels of the convolutions
                belongs to the optimizer
        zju     as keras with up: transposed 4x4, BN before the ReLU in column 0 only; its filters
                are 64 to 1024
    out: with deep_supervision `heads` [levels - 1, N, H, W, K], of X(0, 1), X(0, 2), ... The logits
    are the last head's, in form zju the mean of all heads.
    Raises ValueError for an unknown form or a single level.
    """

    form: str = "torch"  # torch | keras | zju
    filters: tuple[int, ...] = (32, 64, 128, 256, 512)  # zju: (64, 128, 256, 512, 1024)
    dropout: float = 0.0  # rate after every ReLU; keras: 0.5
    deep_supervision: bool = False  # a classifier on every node of the top row
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    @property
    def reach(self) -> int:
        # per level 4 convolutions and a pooling window, 2 convolutions at the bottom; bilinear
        # weights and 4x4 kernels see 1 px more
        per_level = 5 if self.form == "keras" else 6
        return per_level * (self.stride - 1) + 2 * self.stride

    @property
    def whole_image(self) -> bool:
        # with align_corners the sampling points move with the image's size
        return self.form == "torch"

    def _conv(self, x: Array, features: int, column: int, name: str, train: bool) -> Array:
        """Convolution with what follows it up to the ReLU."""
        if self.form == "torch":
            return self.conv_norm_act(x, features, name, train=train)
        if self.form == "zju" and column == 0:
            layer = HeConvNorm(features, 3, True, self.bn_momentum, self.bn_epsilon, name=name)
            return layer(x, train=train)
        return nn.relu(Conv(features, initializer=FORMS[self.form], name=name)(x))

    def _block(self, x: Array, row: int, column: int, train: bool) -> Array:
        for index in (1, 2):
            name = f"x{row}_{column}_conv{index}"
            x = self._conv(x, self.filters[row], column, name, train)
            drop = Dropout(self.dropout, name=f"x{row}_{column}_dropout{index}")
            x = drop(x, train=train)
        return x

    def _join(self, before: list[Array], below: Array, row: int, column: int) -> Array:
        """The row's earlier nodes and the node below, which has half their sides."""
        if self.form == "torch":
            up = resize.bilinear(below, *before[0].shape[1:3], align_corners=True)
            return jnp.concatenate([*before, up], -1)
        size = 2 if self.form == "keras" else 4
        up = UpConv(
            self.filters[row], size, initializer=FORMS[self.form], name=f"x{row}_{column}_up"
        )
        return jnp.concatenate([up(below), *before], -1)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r}: choose {', '.join(FORMS)}")
        levels = len(self.filters)
        if levels < 2:
            raise ValueError(f"filters={self.filters}: at least 2 levels")
        check_image(image, self.stride)
        rows: list[list[Array]] = [[] for _ in range(levels)]
        for level in range(levels):
            for column in range(level + 1):
                row = level - column
                if column:
                    x = self._join(rows[row], rows[row + 1][column - 1], row, column)
                else:
                    x = max_pool2(rows[row - 1][0]) if row else image
                rows[row].append(self._block(x, row, column, train))
        return self._classify(rows[0][1:])

    def _classify(self, top: list[Array]) -> tuple[Array, dict]:
        """Logits and extra outputs from X(0, 1), X(0, 2), ..."""

        def head(x: Array, name: str) -> Array:
            return Conv(self.num_classes, 1, initializer=FORMS[self.form], name=name)(x)

        if not self.deep_supervision:
            return head(top[-1], "classifier"), {}
        heads = jnp.stack([head(x, f"head{column}") for column, x in enumerate(top, 1)])
        return heads.mean(0) if self.form == "zju" else heads[-1], {"heads": heads}
