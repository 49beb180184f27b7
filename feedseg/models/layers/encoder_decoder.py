"""Encoder, bottom and decoder with skips of a U-Net of any layers."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import Dropout
from feedseg.models.layers.conv import UpConv, max_pool2
from feedseg.models.layers.shapes import check

Array = jax.Array
Layer = Callable[[Array, int, str], Array]  # (x, features, name) -> [N, H, W, features]


def skip_first(skip: Array, up: Array) -> Array:
    """The map that a decoder block sees, [skip, up]."""
    return jnp.concatenate([skip, up], -1)


class UnetParts(NamedTuple):
    """The layers of the network; call them in a compact method.

    block: the convolutions of enc1, enc2, ... bottom, ... dec2, dec1. up: doubles the sides, under
    the names ... dec2_up, dec1_up. dropout: rate after the last level above the bottom (into the
    skip and the pool) and after the bottom. join: what a decoder block sees of skip and up.
    """

    block: Layer
    up: Layer
    train: bool
    dropout: float = 0.0
    join: Callable[[Array, Array], Array] = skip_first

    def drop(self, x: Array, block: str) -> Array:
        return Dropout(self.dropout, name=f"{block}_dropout")(x, train=self.train)


def pair(conv: Layer) -> Layer:
    """A block of two convolutions, BLOCK_conv1 and BLOCK_conv2."""

    def block(x: Array, features: int, name: str) -> Array:
        for index in (1, 2):
            x = conv(x, features, f"{name}_conv{index}")
        return x

    return block


def up_conv(initializer: str, kernel_size: int = 2) -> Layer:
    """A transposed convolution with stride 2."""

    def up(x: Array, features: int, name: str) -> Array:
        return UpConv(features, kernel_size, initializer=initializer, name=name)(x)

    return up


def first_block(filters: Sequence[int]) -> str:
    """Name of the block that sees the image: a network of one level is nothing but its bottom."""
    return "enc1" if len(filters) > 1 else "bottom"


def u_net(parts: UnetParts, image: Array, filters: Sequence[int]) -> Array:
    """From the image to the map before the classifier, [N, H, W, filters[0]].

    filters: channels per level from the top, the last is the bottom.
    """
    return below(parts, parts.block(image, filters[0], first_block(filters)), filters)


def below(parts: UnetParts, top: Array, filters: Sequence[int]) -> Array:
    """`u_net` from the first block's output on."""
    check("U-Net", top=(top, f"N H W {filters[0]}"))
    *widths, bottom = filters
    x, skips = top, []
    for level, features in enumerate(widths, 1):
        if level > 1:
            x = parts.block(x, features, f"enc{level}")
        if level == len(widths):
            x = parts.drop(x, f"enc{level}")
        skips.append(x)
        x = max_pool2(x)
    if widths:
        x = parts.block(x, bottom, "bottom")
    x = parts.drop(x, "bottom")
    for level in range(len(widths), 0, -1):
        up = parts.up(x, widths[level - 1], f"dec{level}_up")
        x = parts.block(parts.join(skips[level - 1], up), widths[level - 1], f"dec{level}")
    return x


def reach(filters: Sequence[int], passes: Callable[[str], int] = lambda name: 1) -> int:
    """Radius of the receptive field in px with two convolutions per block.

    passes(name): 3x3 convolutions behind the name of each.
    """
    levels = len(filters) - 1
    blocks = [
        (f"{part}{level}", 2 ** (level - 1))
        for part in ("enc", "dec")
        for level in range(1, levels + 1)
    ]
    total = sum(
        scale * passes(f"{block}_conv{index}")
        for block, scale in [*blocks, ("bottom", 2**levels)]
        for index in (1, 2)
    )
    return total + 2**levels - 1  # a pooling window reaches one pixel of its level further
