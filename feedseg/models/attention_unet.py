"""Attention U-Net: a U-Net whose skips pass through gates that the coarser levels steer.

    d_l = B([a_l(e_l, g_l) e_l, up(d_{l+1})]),  a_l in (0, 1): a gate, g_l: its gating signal

image [N, H, W, C] -> logits [N, H, W, K]. Attention U-Net (Oktay et al., 2018), Fig. 1; details
from LeeJunHyun/Image_Segmentation, the de-facto reference and default, and from the first author's
released code (ozan-oktay/Attention-Gated-Networks). Deep supervision is off as AEP (2024), which
compares with this network, mentions none.
Deviation: oktay without deep_supervision has one classifier on the top level; the biases of its
classifiers start at 0, not at PyTorch's uniform numbers.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers import resize
from feedseg.models.layers.attention_gate import GridGates, SameSizeGate
from feedseg.models.layers.blocks import HeConvNorm
from feedseg.models.layers.conv import Conv, max_pool2
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check_image

Array = jax.Array

FORMS = {  # form: channels per level in the released code
    "lee": (64, 128, 256, 512, 1024),
    "oktay": (16, 32, 64, 128, 256),
}


class Model(Network):
    """Two convolutions per level, a gate on the skips, joined as [gated skip, up], classifier.

    form:
        lee     up: nearest pixel, conv3, BN, ReLU; this map steers the gate of its own level
                (`SameSizeGate`, half of the level's channels inside); all skips are gated
        oktay   the 3-D network with 2 dimensions; up: bilinear; the map of the coarser level steers
                the gate (`GridGates`), at the deepest level after conv1, BN, ReLU; the top skip is
                not gated
    out: `attention` [L, N, H, W], the gates' maps in (0, 1), deepest level first, as squares of
    equal numbers for lower levels; with deep_supervision (oktay) `heads` [levels - 1, N, H, W, K],
    up-sampled logits of every decoder level, top first, of which the logits are a 1x1 convolution.
    Raises ValueError for what a form does not have.
    """

    form: str = "lee"  # lee | oktay
    filters: tuple[int, ...] = ()  # channels per level; empty: those of the form's released code
    gates: int = 1  # per skip; oktay: 1 | 2
    deep_supervision: bool = False  # oktay: a classifier on every decoder level
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level."""
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r}: choose {' or '.join(FORMS)}")
        return tuple(self.filters) or FORMS[self.form]

    @property
    def stride(self) -> int:
        return 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        # per level 2 convolutions down, 3 up (or 2 and bilinear weights, which see 1 px more) and
        # a pooling window; 2 convolutions at the bottom
        return 6 * (self.stride - 1) + 2 * self.stride

    def _check(self) -> None:
        if self.gates not in (1, 2):
            raise ValueError(f"gates={self.gates}: choose 1 or 2")
        if self.form == "lee" and (self.gates == 2 or self.deep_supervision):
            raise ValueError(
                "form='lee' has gates=1 and deep_supervision=False; choose form='oktay' for others"
            )
        if len(self.widths) < 2:
            raise ValueError(f"filters={self.filters}: at least 2 levels, there is no skip in one")

    def _layer(self, x: Array, features: int, name: str, train: bool, size: int = 3) -> Array:
        """Convolution, normalization, ReLU, with the form's initial numbers."""
        if self.form == "lee":
            return self.conv_norm_act(x, features, name, train=train, kernel_size=size)
        layer = HeConvNorm(features, size, True, self.bn_momentum, self.bn_epsilon, name=name)
        return layer(x, train=train)

    def _pair(self, x: Array, features: int, block: str, train: bool) -> Array:
        for index in (1, 2):
            x = self._layer(x, features, f"{block}_conv{index}", train)
        return x

    def _same_size(self, train: bool) -> Callable:
        """The step up of form lee: (map below, skip, level) -> up, gated skip, gate maps."""

        def step(below: Array, skip: Array, level: int) -> tuple[Array, Array, list[Array]]:
            features = skip.shape[-1]
            up = self._layer(resize.nearest2(below), features, f"dec{level}_up", train)
            inner = max(1, features // 2)
            gate = SameSizeGate(inner, self.bn_momentum, self.bn_epsilon, name=f"gate{level}")
            skip, gate_map = gate(skip, up, train=train)
            return up, skip, [gate_map]

        return step

    def _grid(self, bottom: Array, train: bool) -> Callable:
        """The step up of form oktay, as above."""
        deepest = len(self.widths) - 1
        gating = self._layer(bottom, self.widths[-1], "gating", train, 1) if deepest > 1 else None

        def step(below: Array, skip: Array, level: int) -> tuple[Array, Array, list[Array]]:
            up = resize.bilinear(below, *skip.shape[1:3], align_corners=False)
            if level == 1:
                return up, skip, []
            gate = GridGates(self.gates, self.bn_momentum, self.bn_epsilon, name=f"gate{level}")
            skip, gate_maps = gate(skip, gating if level == deepest else below, train=train)
            return up, skip, gate_maps

        return step

    def _heads(self, decoded: list[Array]) -> tuple[Array, Array]:
        """Fused logits and those of every level, [S, N, H, W, K], from the maps top first."""
        side = decoded[0].shape[1:3]
        heads = []
        for level, x in enumerate(decoded, 1):
            x = Conv(self.num_classes, 1, initializer="he", name=f"head{level}")(x)
            heads.append(resize.bilinear(x, *side, align_corners=False) if level > 1 else x)
        fused = Conv(self.num_classes, 1, initializer="he", name="classifier")
        return fused(jnp.concatenate(heads, -1)), jnp.stack(heads)

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        self._check()
        check_image(image, self.stride)
        *widths, bottom = self.widths
        x, skips = image, []
        for level, features in enumerate(widths, 1):
            skips.append(self._pair(x, features, f"enc{level}", train))
            x = max_pool2(skips[-1])
        x = self._pair(x, bottom, "bottom", train)
        step_up = self._same_size(train) if self.form == "lee" else self._grid(x, train)
        gate_maps, decoded = [], []
        for level in range(len(widths), 0, -1):
            up, skip, maps = step_up(x, skips[level - 1], level)
            joined = jnp.concatenate([skip, up], -1)
            x = self._pair(joined, widths[level - 1], f"dec{level}", train)
            gate_maps += [_at_image_size(gate_map, level) for gate_map in maps]
            decoded.insert(0, x)
        out = {"attention": jnp.stack(gate_maps)} if gate_maps else {}
        if self.deep_supervision:
            logits, out["heads"] = self._heads(decoded)
            return logits, out
        style = "torch" if self.form == "lee" else "he"
        return Conv(self.num_classes, 1, initializer=style, name="classifier")(x), out


def _at_image_size(gate: Array, level: int) -> Array:
    """A map [N, h, w] of a level at the image's size, every number over its square of pixels."""
    x = gate[..., None]
    for _ in range(level - 1):
        x = resize.nearest2(x)
    return x[..., 0]
