"""RU-Net 8-16-32-64-128 with time-step 2 in PyTorch."""

import torch
from torch import nn

from benchmarks.peers.layers import KERAS, ConvNorm
from benchmarks.peers.unet import FILTERS, UnetSkeleton

PASSES = 3


def _unit(network: nn.Module, name: str, inputs: int, outputs: int) -> None:
    network.add_module(f"{name}_project", nn.Conv2d(inputs, outputs, 1))
    for index in (1, 2):
        network.add_module(f"{name}_recurrent{index}", ConvNorm(outputs, outputs, KERAS))


class RuNet(UnetSkeleton):
    """A U-Net whose blocks are a 1x1 convolution and two recurrent ones of 3 passes each."""

    def __init__(self, classes: int, filters=FILTERS, dropout: float = 0.5):
        super().__init__(1, classes, _unit, filters, dropout)

    def block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        x = self.get_submodule(f"{name}_project")(x)
        for index in (1, 2):
            layer = self.get_submodule(f"{name}_recurrent{index}")
            h = layer(x)
            for _ in range(PASSES - 1):
                h = layer(x + h)
            x = h
        return x
