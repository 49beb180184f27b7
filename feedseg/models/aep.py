"""AEP + AWEL: network 1 makes filters that translate the image, network 2 segments each result.

    f_1...f_S, m_0 = N1(x);   x_s = sigmoid(x + relu(f_s));   m_s = N2(x_s);   z = AWEL(m_0...m_S)

image x [N, H, W, C] -> logits z [N, H, W, K]; f_s [N, H, W]. AEP (2024), Eqs. 1-4 and Figs. 3-5;
details from the released code (usagisukisuki/AEP).

Open readings, and the fields that choose the other ones: Eq. 1 can be read as x + sigmoid(relu(f)),
the released code and the sentence on normalization are not (`translate`); the paper's penultimate
map has as many channels as there are filters, the released code's 16, of which it uses the first
(`penultimate`); network 2's batch statistics are per call, as in the released code (`net2_bn`);
"AEP" without AWEL has "only one segmented image": network 2 sees all translated images as channels
(`ensemble="stacked"`), or one filter exists (`"single"`). For those of AWEL see `layers.awel`.
"""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg import models
from feedseg.models import aep_net
from feedseg.models.layers.awel import Awel
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check, check_image

Array = jax.Array

ENSEMBLES = ("learned", "fixed", "stacked", "single")


def translate(image: Array, filters: Array, reading: str) -> Array:
    """Translated images: `sigmoid(x + relu(f_s))` (code) or `x + sigmoid(relu(f_s))` (Eq. 1).

    image [N, H, W, C], filters [N, H, W, S] -> [S, N, H, W, C]; each filter is added to all C
    channels.
    """
    check("translate", image=(image, "N H W C"), filters=(filters, "N H W S"))
    positive = nn.relu(jnp.moveaxis(filters, -1, 0)[..., None])
    if reading == "code":
        return nn.sigmoid(image + positive)
    if reading == "eq1":
        return image + nn.sigmoid(positive)
    raise ValueError(f"translate={reading!r}: choose code or eq1")


class Model(Network):
    """Network 1, translation, network 2 once per filter, ensemble.

    source: what the filters are, the `penultimate` map or network 1's `output`, `softmax` or
    `argmax` (Table 6). ensemble: `learned` or `fixed` AWEL over all S + 1 maps; `stacked`: network
    2 sees all translated images as channels of one image; `single`: one filter (both without AWEL).

    out: `first` (logits of network 1), `filters` [N, H, W, S], `translated` [S, N, H, W, C] and,
    with AWEL, `members` [S + 1, N, H, W, K] with network 1 first. A network 2 of T rounds adds,
    with AWEL, `member_rounds` [S (T - 1), N, H, W, K], all but the last round, filter by filter;
    without it its `rounds` [T, N, H, W, K].
    """

    penultimate: str | int = "n_filters"  # n_filters | 16: channels of network 1's last map
    multiplier: int = 1  # filters per class
    source: str = "penultimate"  # penultimate | output | softmax | argmax
    translate: str = "code"  # code: sigmoid(x + relu f) | eq1: x + sigmoid(relu f)
    net2_bn: str = "per_call"  # per_call | joint: statistics over the filters
    ensemble: str = "learned"  # learned | fixed | stacked | single
    awel_input: str = "logits"  # logits | probabilities
    awel_init: str = "torch"  # torch | mean
    dropout: float = 0.5
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    # "own", or another network with all its arguments
    network2: Mapping[str, Any] = field(default_factory=lambda: {"name": "own"})

    @property
    def stride(self) -> int:
        return math.lcm(aep_net.Model.stride, self._network2().stride)

    @property
    def reach(self) -> int:
        return aep_net.Model.reach + self._network2().reach

    @property
    def whole_image(self) -> bool:
        return self._network2().whole_image

    @property
    def num_filters(self) -> int:
        return 1 if self.ensemble == "single" else self.multiplier * self.num_classes

    def _net(self, penultimate: int, name: str | None) -> Network:
        config = dict(
            name="aep_net",
            penultimate=penultimate,
            dropout=self.dropout,
            bn_momentum=self.bn_momentum,
            bn_epsilon=self.bn_epsilon,
        )
        return models.build(self.num_classes, config, name=name)

    def _network2(self, name: str | None = None) -> Network:
        """Network 2, as a part of this one if it has a name."""
        if self.network2["name"] == "own":
            return self._net(16, name)
        return models.build(self.num_classes, self.network2, name=name)

    def _width(self) -> int:
        """Channels of network 1's penultimate map."""
        if self.penultimate == "n_filters":
            return self.num_filters
        if str(self.penultimate) != "16":
            raise ValueError(f"penultimate={self.penultimate!r}: choose n_filters or 16")
        if self.num_filters > 16:
            raise ValueError(f"penultimate=16 has 16 channels, {self.num_filters} are needed")
        return 16

    def _filters(self, penultimate: Array, logits: Array) -> Array:
        if self.source == "penultimate":
            return penultimate[..., : self.num_filters]
        maps = {
            "output": lambda: logits,
            "softmax": lambda: nn.softmax(logits),
            "argmax": lambda: jax.nn.one_hot(
                logits.argmax(-1), self.num_classes, dtype=logits.dtype
            ),
        }
        if self.source not in maps:
            raise ValueError(f"source={self.source!r}: choose penultimate, {', '.join(maps)}")
        if self.num_filters > self.num_classes:
            raise ValueError(
                f"source={self.source!r} gives one filter per class: multiplier must be 1"
            )
        return maps[self.source]()[..., : self.num_filters]

    def _second(self, translated: Array, train: bool) -> tuple[Array, Array | None]:
        """Logits of network 2 for every translated image, [S, N, H, W, K].

        And those of its rounds before the last, [S (T - 1), N, H, W, K], None if it has none.
        """
        net2 = self._network2("network2")
        if self.net2_bn == "per_call":
            calls = [net2(image, train=train) for image in translated]
            earlier = [out["rounds"][:-1] for _, out in calls if "rounds" in out]
            logits = jnp.stack([logits for logits, _ in calls])
            return logits, jnp.concatenate(earlier) if earlier else None
        if self.net2_bn != "joint":
            raise ValueError(f"net2_bn={self.net2_bn!r}: choose per_call or joint")
        count, batch = translated.shape[:2]
        logits, out = net2(translated.reshape(-1, *translated.shape[2:]), train=train)
        logits = logits.reshape(count, batch, *logits.shape[1:])
        if "rounds" not in out:
            return logits, None
        earlier = out["rounds"][:-1]  # [T - 1, S N, ...] -> [S (T - 1), N, ...]
        by_filter = earlier.reshape(len(earlier), count, batch, *earlier.shape[2:])
        return logits, jnp.swapaxes(by_filter, 0, 1).reshape(-1, *by_filter.shape[2:])

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble={self.ensemble!r}: choose {', '.join(ENSEMBLES)}")
        check_image(image, self.stride)
        first, extra = self._net(self._width(), "network1")(image, train=train)
        filters = self._filters(extra["penultimate"], first)
        translated = translate(image, filters, self.translate)
        out = {"first": first, "filters": filters, "translated": translated}
        if self.ensemble in ("stacked", "single"):
            images = list(translated)
            stacked = jnp.concatenate(images, -1) if self.ensemble == "stacked" else images[0]
            logits, second_out = self._network2("network2")(stacked, train=train)
            rounds = {"rounds": second_out["rounds"]} if "rounds" in second_out else {}
            return logits, out | rounds
        second, earlier = self._second(translated, train)
        if earlier is not None and len(earlier):
            out["member_rounds"] = earlier
        out["members"] = jnp.concatenate([first[None], second])
        awel = Awel(self.ensemble, self.awel_input, self.awel_init, name="awel")
        return awel(out["members"]), out
