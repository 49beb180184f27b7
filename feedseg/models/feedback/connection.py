"""Connections that feed the last feature map of one round back to the first one of the next."""

import flax.linen as nn
import jax

from feedseg.models.feedback.attention import attention
from feedseg.models.feedback.round_norm import NormConfig
from feedseg.models.layers.blocks import squeeze_excite
from feedseg.models.layers.conv import Conv, max_pool2
from feedseg.models.layers.shapes import check, check_sides

Array = jax.Array

KINDS = ("none", "self", "source_target", "add", "conv1x1", "se", "light")
GLOBAL = ("self", "source_target", "se")  # a pixel depends on all others


class Connection(nn.Module):
    """`A = scale fb(F, G) + F`, F near the input, G before the classifier, [N, H, W, C] each.

    kind, with P a 1x1 convolution and BN batch normalization:
        source_target   fb = BN(P(attention(Q, K, V))), Q = BN(P(F)), K, V = BN(P(G)); Q and K have
                        C / qk_div channels (at least 1), V has C / v_div
        self            the same with Q of G too
        add             fb = G
        conv1x1         fb = P(G)
        se              fb = G s(W2 ReLU(W1 mean(G))), C / 16 hidden units (at least 1)
        light           fb = G M, or G + G M with light_residual; M = s(BN(conv3(G))), with
                        light_convs = 2 after another conv3, BN, ReLU
    scale: one learned number that starts at 0; use_scale=False: 1. kv_pool: keys and values are
    the maxima over squares of that side, px. output_norm: BN after the output convolution.

    Source: Feedback Attention (2020), section 3.2, Eqs. 1-3. Readings: attention is exact, as the
    equations sum over all pixels (SAGAN's code, which the paper follows, pools: kv_pool=2); self
    attention's output convolution has BN, which the text does not mention (output_norm); scale is
    used in all kinds, though stated for some only (use_scale); of light attention one sentence is
    known, for which M is the plainest form (light_convs, light_residual).
    """

    kind: str
    qk_div: int
    v_div: int
    kv_pool: int
    query_block: int
    output_norm: bool
    light_convs: int
    light_residual: bool
    se_biases: bool
    use_scale: bool
    use_bias: bool
    initializer: str
    norms: NormConfig

    @nn.compact
    def __call__(self, f: Array, g: Array, t: Array | int, *, train: bool) -> tuple[Array, dict]:
        """F and G, and the number of uses before this one -> A, and maps for inspection."""
        check("Connection", f=(f, "N H W C"), g=(g, "N H W C"))
        builders = {
            "self": lambda: self._attention(g, g, t, train),
            "source_target": lambda: self._attention(f, g, t, train),
            "add": lambda: (g, {}),
            "conv1x1": lambda: (self._conv(g.shape[-1], "pointwise")(g), {}),
            "se": lambda: (squeeze_excite(g, self.initializer, self.se_biases), {}),
            "light": lambda: (self._light(g, t, train), {}),
        }
        if self.kind not in builders:
            raise ValueError(f"connection={self.kind!r}: choose {', '.join(KINDS)}")
        fed_back, maps = builders[self.kind]()
        if not self.use_scale:
            return f + fed_back, maps
        scale = self.param("scale", nn.initializers.zeros, (1,))
        return f + scale.astype(f.dtype) * fed_back, maps

    def _conv(self, features: int, name: str, size: int = 1, before_norm: bool = False) -> Conv:
        return Conv(
            features,
            size,
            use_bias=self.use_bias or not before_norm,
            before_norm=before_norm,
            initializer=self.initializer,
            name=name,
        )

    def _attention(self, source: Array, target: Array, t, train: bool) -> tuple[Array, dict]:
        channels = source.shape[-1]
        narrow, wide = max(1, channels // self.qk_div), max(1, channels // self.v_div)

        def project(x: Array, features: int, name: str) -> Array:
            x = self._conv(features, name, before_norm=True)(x)
            return self.norms.build(f"{name}_norm")(x, t, train=train)

        query = _pixels(project(source, narrow, "query"))
        key = _pixels(_max_pool(project(target, narrow, "key"), self.kv_pool))
        value = _pixels(_max_pool(project(target, wide, "value"), self.kv_pool))
        summed = attention(query, key, value, self.query_block).reshape(*source.shape[:3], wide)
        fed_back = self._conv(channels, "output", before_norm=self.output_norm)(summed)
        if self.output_norm:
            fed_back = self.norms.build("output_norm")(fed_back, t, train=train)
        return fed_back, {"query": query, "key": key}

    def _light(self, g: Array, t, train: bool) -> Array:
        if self.light_convs not in (1, 2):
            raise ValueError(f"light_convs={self.light_convs}: choose 1 or 2")
        mask = g
        for index in range(1, self.light_convs + 1):
            conv = self._conv(g.shape[-1], f"conv{index}", 3, before_norm=True)
            norm = self.norms.build(f"norm{index}")
            mask = norm(conv(nn.relu(mask) if index == 2 else mask), t, train=train)
        gated = g * nn.sigmoid(mask)
        return g + gated if self.light_residual else gated


def _pixels(x: Array) -> Array:
    """[N, H, W, C] -> [N, H W, C]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _max_pool(x: Array, side: int) -> Array:
    """Maxima over squares of 1, 2 or 4 px."""
    if side not in (1, 2, 4):
        raise ValueError(f"kv_pool={side}: choose 1, 2 or 4")
    check_sides(x, side)
    while side > 1:
        x, side = max_pool2(x), side // 2
    return x
