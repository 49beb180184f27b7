"""The DenseNet encoder: every layer takes the maps of all layers before it in its block.

Huang et al., Densely Connected Convolutional Networks (CVPR 2017).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import receptive_field as field
from feedseg.models.layers.batch_norm import BatchNorm
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.shapes import check

Array = jax.Array

GROWTH, BLOCKS = 32, (6, 12, 24, 16)  # of DenseNet-121


def avg_pool2(x: Array) -> Array:
    """2x2 mean with stride 2, sides even."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


class DenseNet(nn.Module):
    """Maps behind each of four dense blocks of an image [N, H, W, C].

        stem        conv7 stride 2, BN; 2 g channels at H/2
        layer       x -> [x, conv3(ReLU(BN(conv1(ReLU(BN(x))))))], g new channels, 4 g between
        block k     blocks[k] layers
        transition  conv1(ReLU(BN(x))) to half of the channels, 2x2 mean; behind blocks 1 to 3
        end         BN

    growth: g. No convolution has a bias. Returns the maps behind the three transitions (H/4, H/8,
    H/16) and the end (H/16): 128, 256, 512 and 1024 channels with DenseNet-121's growth 32 and
    blocks (6, 12, 24, 16). Names follow torchvision's.
    Deviation: no ReLU and no max-pooling behind the stem and no ReLU at the end, as SAUNet's
    released code takes it (sunjesse/shape-attentive-unet).
    """

    growth: int
    blocks: Sequence[int]
    initializer: str
    momentum: float
    epsilon: float

    def _norm(self, x: Array, name: str, train: bool, relu: bool = True) -> Array:
        return BatchNorm(self.momentum, self.epsilon, relu, name=name)(x, train=train)

    def _conv(self, x: Array, features: int, size: int, name: str, stride: int = 1) -> Array:
        conv = Conv(features, size, stride, use_bias=False, initializer=self.initializer, name=name)
        return conv(x)

    def _block(self, x: Array, block: int, train: bool) -> Array:
        for index in range(1, self.blocks[block - 1] + 1):
            name = f"block{block}_layer{index}"
            new = self._norm(x, f"{name}_norm1", train)
            new = self._conv(new, 4 * self.growth, 1, f"{name}_conv1")
            new = self._norm(new, f"{name}_norm2", train)
            x = jnp.concatenate([x, self._conv(new, self.growth, 3, f"{name}_conv2")], -1)
        return x

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, Array, Array, Array]:
        check("DenseNet", image=(image, "N H W C"))
        x = self._conv(image, 2 * self.growth, 7, "conv0", stride=2)
        x, maps = self._norm(x, "norm0", train, relu=False), []
        for block in (1, 2, 3):
            x = self._block(x, block, train)
            name = f"transition{block}"
            x = self._norm(x, f"{name}_norm", train)
            x = avg_pool2(self._conv(x, x.shape[-1] // 2, 1, f"{name}_conv"))
            maps.append(x)
        return *maps, self._norm(self._block(x, 4, train), "norm5", train, relu=False)


def steps_back(blocks: Sequence[int]) -> list[field.Step]:
    """The encoder's layers from the last one back to the image, for its receptive field."""
    first, *others = [field.conv(count=count) for count in blocks]
    return [step for block in reversed(others) for step in (block, field.pool2)] + [
        first,
        field.strided_conv(7),
    ]
