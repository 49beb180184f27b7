"""SAUNet, the shape attentive U-Net: a DenseNet encoder, an edge stream, a dual-attention decoder.

    c2, c3, c4, c5 = DenseNet(image)            H/4, H/8, H/16, H/16
    e = shape stream(c2, c3, c4, c5)            H, logits of the edges
    d = dual attention from the center up with the skips c5, up2(c4), up2(c3), up2(c2)
    logits = conv1(conv3([top(d), expand(s(w [s(e), canny]))])),  s: sigmoid

image [N, H, W, 1 or 3] -> logits [N, H, W, K]. Sun et al., SAUNet: Shape Attentive U-Net for
Interpretable Medical Image Segmentation (MICCAI 2020), Fig. 1; details from the released code
(sunjesse/shape-attentive-unet). AEP (2024) prints "SAUNet" and describes this network but cites
another one, `sa_unet`; this one is taken.
Deviation: the released code computes Canny of whatever its loader has normalized and starts from
ImageNet weights (`feedseg.training.pretrained` reads them from a file; the image stays in [0, 1],
norm0 takes care of its scale); all random kernels and biases start in one style, where the released
code mixes PyTorch's, He's and Glorot's.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from feedseg.models.layers import densenet
from feedseg.models.layers import receptive_field as field
from feedseg.models.layers.canny import canny, grey8
from feedseg.models.layers.conv import Conv, max_pool2
from feedseg.models.layers.dual_attention import DualAttention
from feedseg.models.layers.network import Network
from feedseg.models.layers.resize import bilinear
from feedseg.models.layers.shape_stream import ShapeStream
from feedseg.models.layers.shapes import check_image

Array = jax.Array

CANNY_LOW, CANNY_HIGH = 10, 100  # thresholds of |gx| + |gy| of the 8-bit image


def edges(image: Array, source: str) -> Array:
    """Canny edges, 0 or 255 as the released code has them, [N, H, W, 1]; no gradient.

    source: `grey255`: of the mean over the channels as 8-bit numbers, 0 to 255; `as_released`: of
    the mean of the image in [0, 1] cast to 8 bits, on which no edge is ever found.
    """
    if source not in ("grey255", "as_released"):
        raise ValueError(f"canny_source={source!r}: choose grey255 or as_released")
    if source == "grey255":
        gray = grey8(image)
    else:
        mean = lax.stop_gradient(image).astype(jnp.float32).mean(-1)
        gray = jnp.clip(mean, 0, 255).astype(jnp.int32)
    return canny(gray, CANNY_LOW, CANNY_HIGH)[..., None].astype(image.dtype) * 255


class Model(Network):
    """Texture encoder, shape stream, decoder with dual attention; for images of 1 or 3 channels.

    decoder: channels of the four dual-attention blocks (the center has the first), of the top
    convolution and of the top transposed convolution, which are those of the edge feature and of
    the last convolution too. A gray image is copied into three channels.

    out: `edge` [N, H, W, 1], logits of the edge map, for a loss of its own; `canny` [N, H, W, 1],
    the Canny image as it is used, 0 or 255.
    Raises ValueError for another number of channels or another length of a tuple.
    """

    growth: int = 32  # DenseNet: channels that every layer adds
    blocks: tuple[int, ...] = (6, 12, 24, 16)  # DenseNet: layers of the four blocks
    shape_stream: tuple[int, ...] = (64, 32, 16, 8)  # channels of the edge stream
    decoder: tuple[int, ...] = (512, 256, 128, 64, 48, 32)
    canny_source: str = "grey255"  # grey255 | as_released: see `edges`
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    initializer: str = "torch"  # torch | keras | he

    stride: ClassVar[int] = 32
    whole_image: ClassVar[bool] = True  # channel attention

    @property
    def reach(self) -> int:
        """Of everything but the channel attention; up-sampling counts from aligned centers."""
        up = [step for _ in range(5) for step in (field.conv(), field.up_conv(4))]
        center = [field.conv(), field.pool2]
        path = [field.conv(), *up, *center, *densenet.steps_back(self.blocks)]
        return field.reach(path, self.stride)

    def _check(self, image: Array) -> None:
        check_image(image, self.stride)
        if image.shape[-1] not in (1, 3):
            raise ValueError(f"saunet takes images of 1 or 3 channels, not {image.shape[-1]}")
        for key, length in (("blocks", 4), ("shape_stream", 4), ("decoder", 6)):
            if len(getattr(self, key)) != length:
                raise ValueError(f"{key}={getattr(self, key)}: choose {length} numbers")

    def _edge_feature(self, edge: Array, canny_edges: Array, train: bool) -> Array:
        both = jnp.concatenate([nn.sigmoid(edge), canny_edges], -1)
        mixed = Conv(1, 1, use_bias=False, initializer=self.initializer, name="edge_mix")(both)
        return self._layer(nn.sigmoid(mixed), self.decoder[-1], "edge_expand", train, kernel_size=1)

    def _layer(self, x: Array, features: int, name: str, train: bool, **kind) -> Array:
        return self.conv_norm_act(
            x, features, name, train=train, initializer=self.initializer, **kind
        )

    def _kind(self) -> dict:
        return dict(
            initializer=self.initializer, momentum=self.bn_momentum, epsilon=self.bn_epsilon
        )

    def _decode(self, c2: Array, c3: Array, c4: Array, c5: Array, train: bool) -> Array:
        *widths, conv, last = self.decoder
        x = self._layer(max_pool2(c5), widths[0], "centre", train)  # spelt as in stored weights
        skips = (c5, _double(c4), _double(c3), _double(c2))
        for level, features, skip in zip((5, 4, 3, 2), widths, skips, strict=True):
            block = DualAttention(features, name=f"dec{level}", **self._kind())
            x = block(x, skip, train=train)
        x = self._layer(x, conv, "dec1_conv", train)
        return self._layer(x, last, "dec1_up", train, kernel_size=4, up=True)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        self._check(image)
        n, height, width, _ = image.shape
        canny_edges = edges(image, self.canny_source)
        image = jnp.broadcast_to(image, (n, height, width, 3))
        encoder = densenet.DenseNet(self.growth, self.blocks, name="encoder", **self._kind())
        maps = encoder(image, train=train)
        stream = ShapeStream(self.shape_stream, name="shape_stream", **self._kind())
        edge = stream(maps, height, width, train=train)
        feature = self._edge_feature(edge, canny_edges, train)
        x = jnp.concatenate([self._decode(*maps, train), feature], -1)
        x = self._layer(x, self.decoder[-1], "dec0_conv", train)
        classifier = Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")
        return classifier(x), {"edge": edge, "canny": canny_edges}


def _double(x: Array) -> Array:
    return bilinear(x, 2 * x.shape[1], 2 * x.shape[2], align_corners=True)
