"""Recurrent convolutional layers: one convolution fed with its own output."""

import flax.linen as nn
import jax

from feedseg.layers.conv import Conv
from feedseg.layers.round_norm import Norms

Array = jax.Array

KERNELS = ("shared", "separate")


class RecurrentConv(nn.Module):
    """A convolution that sees its input and its own last output, t times after the first pass.

        shared (A6, Lee's code):  y = P * x (1x1);  h_0 = g(y);  h_s = g(y + h_{s-1})
                                  with g(z) = ReLU(BN(W * z + b))
        separate (Liang & Hu):    h_0 = ReLU(BN(Wf * x + b));
                                  h_s = ReLU(BN(Wf * x + Wr * h_{s-1} + b))

    for s = 1...t: t = 2 means 3 passes. One normalisation serves all passes, one after the other.
    Sources: Liang & Hu (2015), Eq. 3; Alom et al. (2018), Eq. 1; LeeJunHyun/Image_Segmentation.
    """

    features: int
    kernel: str
    t: int
    norms: Norms
    use_bias: bool = True
    initializer: str = "keras"

    @nn.compact
    def __call__(self, x: Array, round_index: Array | int = 0, *, train: bool) -> Array:
        if self.kernel not in KERNELS:
            raise ValueError(f"rcl kernel {self.kernel!r}: choose {' or '.join(KERNELS)}")
        norm = self.norms.build("norm")

        def conv(name: str, size: int = 3, use_bias: bool = True) -> Conv:
            return Conv(
                self.features,
                size,
                use_bias=self.use_bias and use_bias,
                before_norm=size == 3,
                initializer=self.initializer,
                name=name,
            )

        def activate(z: Array) -> Array:
            return nn.relu(norm(z, round_index, train=train))

        if self.kernel == "shared":
            y, again = conv("pointwise", 1)(x), conv("conv")
            h = activate(again(y))
            for _ in range(self.t):
                h = activate(again(y + h))
            return h
        y, again = conv("conv")(x), conv("recurrent", use_bias=False)
        h = activate(y)
        for _ in range(self.t):
            h = activate(y + again(h))
        return h
