"""Additive attention gates: a coarse map decides which pixels of a skip pass.

Attention U-Net (Oktay et al., 2018), Eqs. 1-2. Two released readings: a gate at the skip's own size
(LeeJunHyun/Image_Segmentation) and the authors' grid gate, which works at half of it
(ozan-oktay/Attention-Gated-Networks).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import resize
from feedseg.models.layers.batch_norm import BatchNorm
from feedseg.models.layers.blocks import HeConvNorm
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.shapes import check

Array = jax.Array


class SameSizeGate(nn.Module):
    """`x s(BN(psi(ReLU(BN(P(g)) + BN(P(x))))))`, P and psi 1x1 convolutions, s the sigmoid.

    Skip x [N, H, W, C] and gating signal g [N, H, W, G] -> gated skip [N, H, W, C] and the gate's
    map [N, H, W] in (0, 1). inner: channels that P leads to. Source: Lee's code.
    """

    inner: int
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, g: Array, *, train: bool) -> tuple[Array, Array]:
        check("SameSizeGate", x=(x, "N H W C"), g=(g, "N H W G"))

        def project(y: Array, features: int, name: str) -> Array:
            y = Conv(features, 1, before_norm=True, name=f"{name}_conv")(y)
            return BatchNorm(self.momentum, self.epsilon, name=f"{name}_norm")(y, train=train)

        g, projected = project(g, self.inner, "gating"), project(x, self.inner, "skip")
        gate = nn.sigmoid(project(nn.relu(g + projected), 1, "psi"))
        return x * gate, gate[..., 0]


class GridGate(nn.Module):
    """`BN(W(x up(s(psi(ReLU(theta(x) + phi(g)))))))` with the sum at the gating signal's size.

    theta: 2x2 convolution with stride 2, no bias; phi, psi, W: 1x1 with bias; up: bilinear. theta
    and phi lead to as many channels as the skip has. Skip x [N, 2h, 2w, C], gating signal g
    [N, h, w, G] -> [N, 2h, 2w, C] and the gate's map [N, 2h, 2w] in (0, 1).
    Source: Oktay's code, with 2 for its 3 dimensions. Deviation: the biases of phi and psi start at
    0, not at PyTorch's uniform numbers.
    """

    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, g: Array, *, train: bool) -> tuple[Array, Array]:
        check("GridGate", g=(g, "N h w G"), x=(x, "N 2h 2w C"))
        channels = x.shape[-1]
        theta = Conv(channels, 2, 2, use_bias=False, initializer="he", name="theta")(x)
        phi = Conv(channels, 1, initializer="he", name="phi")(g)
        psi = Conv(1, 1, initializer="he", name="psi")(nn.relu(theta + phi))
        gate = resize.bilinear(nn.sigmoid(psi), *x.shape[1:3], align_corners=False)
        output = HeConvNorm(channels, 1, False, self.momentum, self.epsilon, name="output")
        return output(x * gate, train=train), gate[..., 0]


class GridGates(nn.Module):
    """One or more grid gates on the same skip, fused: `ReLU(BN(P(concat of the gates)))`.

    P: 1x1 convolution to the skip's C channels. Returns [N, 2h, 2w, C] and the list of the gates'
    maps [N, 2h, 2w]. Source: Oktay's code.
    """

    gates: int
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, g: Array, *, train: bool) -> tuple[Array, list[Array]]:
        gated, maps = [], []
        for index in range(1, self.gates + 1):
            gate = GridGate(self.momentum, self.epsilon, name=f"gate{index}")
            y, gate_map = gate(x, g, train=train)
            gated.append(y)
            maps.append(gate_map)
        fuse = HeConvNorm(x.shape[-1], 1, True, self.momentum, self.epsilon, name="fuse")
        return fuse(jnp.concatenate(gated, -1), train=train), maps
