"""The networks of the comparisons in plain PyTorch: the same layers, sizes and losses as feedseg's.

Written from the descriptions of the networks. But for AEP, whose names are those of its released
weights, every layer is called what feedseg's parameter tree calls it.
"""

import torch
from torch import nn

from benchmarks.peers import aep, feedback_unet, ru_net, unet, unet_plus_plus

NETWORKS = {
    "aep": lambda classes: aep.Aep(classes, penultimate=classes),
    "unet": unet.Unet,
    "feedback_unet": feedback_unet.FeedbackUnet,
    "ru_net": ru_net.RuNet,
    "unet_plus_plus": unet_plus_plus.UnetPlusPlus,
}


def build(name: str, classes: int) -> nn.Module:
    """The network of that name, as in feedseg/models. image [N, 1, H, W] -> logits first."""
    return NETWORKS[name](classes)


def loss(network: nn.Module, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every map the network is trained on; labels [N, H, W] int64.

    A network with several maps has `maps(image)`, the result last, and `earlier`, the weight of all
    others.
    """
    *others, logits = network.maps(image) if hasattr(network, "maps") else [network(image)]
    total = nn.functional.cross_entropy(logits, labels)
    for each in others:
        total = total + network.earlier * nn.functional.cross_entropy(each, labels)
    return total
