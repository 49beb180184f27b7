"""U-Net 8-16-32-64-128 in PyTorch."""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.peers.layers import KERAS, ConvNorm

FILTERS = (8, 16, 32, 64, 128)


class UnetSkeleton(nn.Module):
    """Encoder, bottom and decoder with skips around blocks of any kind.

    make_block(network, name, inputs, outputs) adds a block's layers; `block(x, name)` runs them.
    Dropout before the last pooling (and in its skip) and behind the bottom.
    """

    def __init__(self, channels: int, classes: int, make_block: Callable, filters, dropout: float):
        super().__init__()
        self.levels = len(filters) - 1
        for level, (inputs, outputs) in enumerate(zip((channels, *filters), filters, strict=False)):
            name = f"enc{level + 1}" if level < self.levels else "bottom"
            make_block(self, name, inputs, outputs)
        for level in range(self.levels, 0, -1):
            deep, wide = filters[level], filters[level - 1]
            self.add_module(f"dec{level}_up", nn.ConvTranspose2d(deep, wide, 2, stride=2))
            make_block(self, f"dec{level}", 2 * wide, wide)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(filters[0], classes, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """image [N, C, H, W] -> the map before the classifier."""
        skips = []
        for level in range(1, self.levels + 1):
            x = self.block(x, f"enc{level}")
            x = self.drop(x) if level == self.levels else x
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.drop(self.block(x, "bottom"))
        for level in range(self.levels, 0, -1):
            up = self.get_submodule(f"dec{level}_up")(x)
            x = self.block(torch.cat([skips[level - 1], up], 1), f"dec{level}")
        return x

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image))


class Unet(UnetSkeleton):
    """The plain U-Net of the Feedback U-Net paper."""

    def __init__(self, classes: int, filters=FILTERS, dropout: float = 0.5, norm: dict = KERAS):
        def pair(network, name: str, inputs: int, outputs: int) -> None:
            network.add_module(f"{name}_conv1", ConvNorm(inputs, outputs, norm))
            network.add_module(f"{name}_conv2", ConvNorm(outputs, outputs, norm))

        super().__init__(1, classes, pair, filters, dropout)

    def block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for index in (1, 2):
            x = self.get_submodule(f"{name}_conv{index}")(x)
        return x
