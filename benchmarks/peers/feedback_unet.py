"""Feedback U-Net in PyTorch: two rounds, six ConvLSTMs whose state is carried."""

import torch
from torch import nn

from benchmarks.peers.layers import KERAS
from benchmarks.peers.unet import FILTERS, UnetSkeleton

ROUNDS = 2
# ConvLSTMs at locations a to e of the paper
MEMORY = ("enc1_conv1", "enc2_conv1", "bottom_conv1", "bottom_conv2", "dec2_conv2", "dec1_conv2")


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """That of Keras 2."""
    return torch.clamp(0.2 * x + 0.5, 0, 1)


class ConvLstm(nn.Module):
    """A step of a ConvLSTM, gates in the order i, f, c, o; one convolution over [x, h].

    Without a state (zeros) neither the recurrent weights nor the forget gate are used.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.empty(4 * outputs, inputs + outputs, 3, 3))
        nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(4 * outputs))
        nn.init.ones_(self.bias.data[outputs : 2 * outputs])

    def forward(self, x: torch.Tensor, state=None):
        """x [N, C, H, W], state (c, h) -> h', (c', h')."""
        if state is None:
            i, g, o = self._first(x).chunk(3, 1)
            c = hard_sigmoid(i) * torch.tanh(g)
        else:
            c, h = state
            both = torch.cat([x, h], 1)
            gates = nn.functional.conv2d(both, self.weight, self.bias, padding=1)
            i, f, g, o = gates.chunk(4, 1)
            c = hard_sigmoid(f) * c + hard_sigmoid(i) * torch.tanh(g)
        h = hard_sigmoid(o) * torch.tanh(c)
        return h, (c, h)

    def _first(self, x: torch.Tensor) -> torch.Tensor:
        n = self.outputs
        weight = torch.cat([self.weight[:n, : self.inputs], self.weight[2 * n :, : self.inputs]])
        bias = torch.cat([self.bias[:n], self.bias[2 * n :]])
        return nn.functional.conv2d(x, weight, bias, padding=1)


def _add_conv(network: nn.Module, name: str, inputs: int, outputs: int) -> None:
    """A convolution, or a ConvLSTM where there is memory, with a normalization for each round."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    network.add_module(name, ConvLstm(inputs, outputs) if name in MEMORY else conv)
    norms = nn.ModuleList(nn.BatchNorm2d(outputs, **KERAS) for _ in range(ROUNDS))
    network.add_module(f"{name}_norm", norms)


def _pair(network: nn.Module, name: str, inputs: int, outputs: int) -> None:
    _add_conv(network, f"{name}_conv1", inputs, outputs)
    _add_conv(network, f"{name}_conv2", outputs, outputs)


class FeedbackUnet(UnetSkeleton):
    """Round 1 sees the image copied to K channels, round 2 the probabilities of round 1."""

    earlier = 0.5  # weight of the first round's loss

    def __init__(self, classes: int, filters=FILTERS, dropout: float = 0.5):
        super().__init__(classes, classes, _pair, filters, dropout)
        _add_conv(self, "extra_conv", filters[0], filters[0])
        self.classes, self.round, self.memory = classes, 0, {}

    def conv(self, x: torch.Tensor, name: str) -> torch.Tensor:
        layer = self.get_submodule(name)
        if name in MEMORY:
            x, self.memory[name] = layer(x, self.memory.get(name))
        else:
            x = layer(x)
        return torch.relu(self.get_submodule(f"{name}_norm")[self.round](x))

    def block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self.conv(self.conv(x, f"{name}_conv1"), f"{name}_conv2")

    def maps(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Logits of both rounds."""
        self.memory, found = {}, []
        x = image.repeat(1, self.classes, 1, 1)
        for self.round in range(ROUNDS):
            logits = self.classifier(self.conv(self.features(x), "extra_conv"))
            found.append(logits)
            x = torch.softmax(logits, 1)
        self.memory = {}
        return found

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.maps(image)[-1]
