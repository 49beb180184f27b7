"""Recurrent convolutional layers: one convolution fed with its own output."""

import flax.linen as nn
import jax

from feedseg.layers.conv import Conv
from feedseg.layers.round_norm import Norms

Array = jax.Array

KERNELS = ("shared", "separate", "unshared_per_step")


class RecurrentConv(nn.Module):
    """A convolution that sees its input and its own last output, t times after the first pass.

        shared (A6, Lee's code):  y = P * x (1x1);  h_0 = g(y);  h_s = g(y + h_{s-1})
                                  with g(z) = ReLU(BN(W * z + b))
        unshared_per_step:        the same, with W, b and BN of its own for every pass
        separate (Liang & Hu):    h_0 = ReLU(BN(Wf * x + b));
                                  h_s = ReLU(BN(Wf * x + Wr * h_{s-1} + b))

    for s = 1...t: t = 2 means 3 passes. One normalisation serves all passes, one after the other.
    pointwise=False: y = x, which then has `features` channels.
    Sources: Liang & Hu (2015), Eq. 3; Alom et al. (2018), Eq. 1; LeeJunHyun/Image_Segmentation;
    unshared: lixiaolei1982/Keras-Implementation-of-U-Net-R2U-Net.
    """

    features: int
    kernel: str
    t: int
    norms: Norms
    use_bias: bool = True
    initializer: str = "keras"
    pointwise: bool = True

    @nn.compact
    def __call__(self, x: Array, round_index: Array | int = 0, *, train: bool) -> Array:
        if self.kernel not in KERNELS:
            raise ValueError(f"rcl kernel {self.kernel!r}: choose {', '.join(KERNELS)}")

        def conv(name: str, size: int = 3, use_bias: bool = True) -> Conv:
            return Conv(
                self.features,
                size,
                use_bias=self.use_bias and use_bias,
                before_norm=size == 3,
                initializer=self.initializer,
                name=name,
            )

        def activation(name: str):
            norm = self.norms.build(name)
            return lambda z: norm(z, round_index, train=train, relu=True)

        if self.kernel == "separate":
            activate = activation("norm")
            y, again = conv("conv")(x), conv("recurrent", use_bias=False)
            h = activate(y)
            for _ in range(self.t):
                h = activate(y + again(h))
            return h
        y = conv("pointwise", 1)(x) if self.pointwise else x
        if self.kernel == "shared":
            steps = [(conv("conv"), activation("norm"))] * (self.t + 1)
        else:
            names = [f"_step{s}" for s in range(self.t + 1)]
            steps = [(conv(f"conv{name}"), activation(f"norm{name}")) for name in names]
        h = None
        for again, activate in steps:
            h = activate(again(y if h is None else y + h))
        return h
