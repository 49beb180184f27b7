"""Layers that several of the PyTorch networks use."""

import torch
from torch import nn

KERAS = dict(momentum=0.01, eps=1e-3)  # of a normalization: Keras's 0.99 and 1e-3
TORCH = dict(momentum=0.1, eps=1e-5)


class ConvNorm(nn.Module):
    """3x3 convolution, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: dict):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs, **norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))
