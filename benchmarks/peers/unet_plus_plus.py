"""UNet++ 32-64-128-256-512 in PyTorch."""

import torch
from torch import nn

from benchmarks.peers.layers import TORCH, ConvNorm

FILTERS = (32, 64, 128, 256, 512)


class UnetPlusPlus(nn.Module):
    """Nodes x(i, j) of two convolutions on [x(i, 0), ..., x(i, j - 1), up(x(i + 1, j - 1))]."""

    def __init__(self, classes: int, filters=FILTERS):
        super().__init__()
        self.levels = len(filters)
        for row, width in enumerate(filters):
            above = filters[row - 1] if row else 1
            for column in range(self.levels - row):
                inputs = column * width + filters[row + 1] if column else above
                self.add_module(f"x{row}_{column}_conv1", ConvNorm(inputs, width, TORCH))
                self.add_module(f"x{row}_{column}_conv2", ConvNorm(width, width, TORCH))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.classifier = nn.Conv2d(filters[0], classes, 1)

    def node(self, x: torch.Tensor, row: int, column: int) -> torch.Tensor:
        for index in (1, 2):
            x = self.get_submodule(f"x{row}_{column}_conv{index}")(x)
        return x

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows: list[list[torch.Tensor]] = []
        for level in range(self.levels):
            x = nn.functional.max_pool2d(rows[level - 1][0], 2) if level else image
            rows.append([self.node(x, level, 0)])
            for column in range(1, level + 1):
                row = level - column
                joined = torch.cat([*rows[row], self.up(rows[row + 1][column - 1])], 1)
                rows[row].append(self.node(joined, row, column))
        return self.classifier(rows[0][-1])
