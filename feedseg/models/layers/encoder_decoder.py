"""The way through a U-Net of any layers: encoder, bottom, decoder with skips."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from feedseg.models.layers.blocks import Dropout
from feedseg.models.layers.conv import UpConv, max_pool2

Array = jax.Array


class Parts(NamedTuple):
    """What the network is made of; call them in a compact method.

    conv(x, features, name): a 3x3 convolution with what follows it. Its names are enc1_conv1,
    enc1_conv2, ... bottom_conv1, ... dec1_conv2, extra_conv. dropout: rate after the last level
    above the bottom (into the skip and the pool) and after the bottom. block(x, features, name)
    and up(x, features, name), of names enc1 ... and dec4_up ..., take the place of a block's two
    convolutions and of the transposed convolution where they are given.
    """

    conv: Callable[[Array, int, str], Array] | None
    dropout: float
    initializer: str
    train: bool
    block: Callable[[Array, int, str], Array] | None = None
    up: Callable[[Array, int, str], Array] | None = None

    def pair(self, x: Array, features: int, block: str) -> Array:
        """The two convolutions of a block."""
        if self.block:
            return self.block(x, features, block)
        for index in (1, 2):
            x = self.conv(x, features, f"{block}_conv{index}")
        return x

    def double(self, x: Array, features: int, name: str) -> Array:
        """[N, H, W, C] to [N, 2H, 2W, features]."""
        if self.up:
            return self.up(x, features, name)
        return UpConv(features, initializer=self.initializer, name=name)(x)

    def drop(self, x: Array, block: str) -> Array:
        return Dropout(self.dropout, name=f"{block}_dropout")(x, train=self.train)


def first_block(filters: Sequence[int]) -> str:
    """Name of the block that sees the image: a network of one level is nothing but its bottom."""
    return "enc1" if len(filters) > 1 else "bottom"


def below(parts: Parts, top: Array, filters: Sequence[int], extra_conv: bool) -> Array:
    """From the first block's output to the map before the classifier, [N, H, W, filters[0]].

    filters: channels per level from the top, the last is the bottom. Concatenation is [skip, up].
    """
    *widths, bottom = filters
    x, skips = top, []
    for level, features in enumerate(widths, 1):
        if level > 1:
            x = parts.pair(x, features, f"enc{level}")
        if level == len(widths):
            x = parts.drop(x, f"enc{level}")
        skips.append(x)
        x = max_pool2(x)
    if widths:
        x = parts.pair(x, bottom, "bottom")
    x = parts.drop(x, "bottom")
    for level in range(len(widths), 0, -1):
        up = parts.double(x, widths[level - 1], f"dec{level}_up")
        joined = jnp.concatenate([skips[level - 1], up], -1)
        x = parts.pair(joined, widths[level - 1], f"dec{level}")
    return parts.conv(x, filters[0], "extra_conv") if extra_conv else x


def reach(filters: Sequence[int], passes: Callable[[str], int], extra_conv: bool) -> int:
    """Radius of the receptive field in px; passes(name): 3x3 convolutions behind each name."""
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
    # a pooling window below each level reaches one pixel of that level further
    return total + 2**levels - 1 + (passes("extra_conv") if extra_conv else 0)
