"""What all networks have in common: number of classes, stride, halo, the usual layer."""

from typing import ClassVar

import flax.linen as nn
import jax

from feedseg.models.layers.blocks import ConvNormAct
from feedseg.runtime.rounding import round_up

Array = jax.Array


class Network(nn.Module):
    """Base of every `Model`, which states its `reach` and, if it has no `filters`, its `stride`.

    filters: channels per level from the top, the last is the bottom; each level halves the map.
    reach: largest distance in px between an output pixel and an input pixel that can change it.
    whole_image: a pixel depends on all others, or the weights on the image's size; images are then
    predicted in windows of the training size.
    """

    num_classes: int

    whole_image: ClassVar[bool] = False

    @property
    def stride(self) -> int:
        """Image sides must be multiples of it."""
        return 2 ** (len(self.filters) - 1)

    @property
    def halo(self) -> int:
        """`reach` as a multiple of the stride."""
        return round_up(self.reach, self.stride)

    def conv_norm_act(self, x: Array, features: int, name: str, *, train: bool, **kind) -> Array:
        """Convolution, batch normalization, ReLU by the network's bn_momentum and bn_epsilon.

        kind: other fields of `ConvNormAct`.
        """
        statistics = dict(momentum=self.bn_momentum, epsilon=self.bn_epsilon)
        return ConvNormAct(features, name=name, **statistics, **kind)(x, train=train)
