"""Recurrent convolutional layers: one convolution fed with its own output."""

import flax.linen as nn
import jax

from feedseg.models.feedback.round_norm import NormConfig
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.shapes import check

Array = jax.Array

KERNELS = ("shared", "separate", "unshared_per_step")
PASS_NORMS = ("shared", "separate")


class RecurrentConv(nn.Module):
    """A convolution of its input and its own last output, t times after the first pass.

        shared (Lee's code):      y = P * x (1x1);  h_0 = g(y);  h_s = g(y + h_{s-1})
                                  with g(z) = ReLU(BN(W * z + b))
        unshared_per_step:        the same, with W, b and BN of its own for every pass
        separate (Liang & Hu):    h_0 = ReLU(BN(Wf * x + b));
                                  h_s = ReLU(BN(Wf * x + Wr * h_{s-1} + b))

    for s = 1...t: t = 2 means 3 passes. pass_norms: `shared`, one normalization serves all passes,
    one after the other (Lee's code); `separate`, every pass has its own scale, bias and running
    statistics, as the distributions of h_0 and h_s differ and one running average fits neither.
    pointwise=False: y = x, which then has `features` channels. The papers' equation has two kernels
    (`separate`), the reference code one (`shared`), which is taken. Nothing is kept between rounds.
    Sources: Liang & Hu (2015), Eq. 3; Alom et al. (2018), Eq. 1; LeeJunHyun/Image_Segmentation;
    unshared: lixiaolei1982/Keras-Implementation-of-U-Net-R2U-Net.
    """

    features: int
    kernel: str
    t: int
    norms: NormConfig
    use_bias: bool = True
    initializer: str = "keras"
    pointwise: bool = True
    pass_norms: str = "shared"

    @nn.compact
    def __call__(self, x: Array, round_index: Array | int = 0, *, train: bool) -> Array:
        check("RecurrentConv", x=(x, "N H W C"))
        if self.kernel not in KERNELS:
            raise ValueError(f"rcl kernel {self.kernel!r}: choose {', '.join(KERNELS)}")
        if self.pass_norms not in PASS_NORMS:
            raise ValueError(f"pass_norms={self.pass_norms!r}: choose {', '.join(PASS_NORMS)}")
        passes = range(self.t + 1)

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

        if self.pass_norms == "shared" and self.kernel != "unshared_per_step":
            activations = [activation("norm")] * len(passes)
        else:
            activations = [activation(f"norm_step{s}") for s in passes]
        if self.kernel == "separate":
            y, again = conv("conv")(x), conv("recurrent", use_bias=False)
            h = activations[0](y)
            for activate in activations[1:]:
                h = activate(y + again(h))
            return h
        y = conv("pointwise", 1)(x) if self.pointwise else x
        if self.kernel == "shared":
            convolutions = [conv("conv")] * len(passes)
        else:
            convolutions = [conv(f"conv_step{s}") for s in passes]
        h = None
        for again, activate in zip(convolutions, activations, strict=True):
            h = activate(again(y if h is None else y + h))
        return h
