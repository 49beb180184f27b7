"""Feedback U-Net: a U-Net that runs T times, each round seeing what the last one made.

    p_t, h_t = U(p_{t-1}, h_{t-1}),  p_0 = image,  t = 1...T

p: class probabilities, h: states of the ConvLSTMs in U, whose weights are the same in all rounds.
image [N, H, W, C] -> logits [N, H, W, K] of round T. Feedback U-Net (2020), section 3; open points
from its first author's released code (ggEisuke/Feedback-U-Net). Instead of or beside p, the last
feature map can return to the first one by a `connection`, as in Feedback Attention (2020).

Open readings: the paper carries h from round to round, the released code starts each round at zero
(`carry_state=False`); the paper's layers differ by round in their normalizations, of which the
released code separates all parts (`bn_rounds`); where the six ConvLSTMs stand (`layout`, see
`feedback.round.positions`); how an image and K probability maps enter the same first convolution
(`first_input`, see `feedback.round.round_input`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.feedback import connection as connections
from feedseg.models.feedback.round import UNITS, Round, Settings, positions
from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.shapes import check_image

Array = jax.Array


class Model(Settings):
    """U-Net of `rounds` rounds with feedback; its fields are those of `feedback.round.Settings`.

    out: `rounds` [T, N, H, W, K], the logits of every round, the last being the result;
    `first_features` [T, N, H, W], the sum of the first layer's channels (of the fed-back map where
    it takes its place); with attention, of the last round, `query` and `key` [N, pixels, D].
    """

    @property
    def reach(self) -> int:
        chosen = positions(self.layout)
        passes = 1 if self.unit == "convlstm" else 1 + self.rcl_t
        one = encoder_decoder.reach(self.filters, lambda name: passes if name in chosen else 1)
        one += self.extra_conv
        later = 0  # what every round after the first adds
        if self.feedback == "probabilities" or self._remembers():
            later = one
        if self.connection != "none":  # leads in behind the first block's first convolutions
            skipped = 1 if self.location == "one_conv" else 2
            light = self.light_convs if self.connection == "light" else 0
            later = max(later, one - skipped + light)
        return one + (self.rounds - 1) * later

    def _remembers(self) -> bool:
        return bool(positions(self.layout)) and self.unit == "convlstm" and self.carry_state

    @property
    def whole_image(self) -> bool:
        return self.connection in connections.GLOBAL or self.peephole

    def _check(self, image: Array) -> None:
        check_image(image, self.stride)
        choices = dict(
            unit=tuple(UNITS),
            feedback=("probabilities", "image"),
            round1_grad=("flow", "stop"),
            location=("one_conv", "two_conv"),
            connection=connections.KINDS,
        )
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose {', '.join(allowed)}")
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: at least 1")
        blocks = {"bottom"} | {
            f"{way}{level}" for way in ("enc", "dec") for level in range(1, len(self.filters))
        }
        for name in sorted(positions(self.layout)):
            if name.split("_")[0] not in blocks:
                raise ValueError(
                    f"layout={self.layout!r}: {len(self.filters)} levels have no {name}"
                )

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, dict]:
        self._check(image)
        network = Round(**self.settings(), name="round")

        def body(network, carry, t, image):
            return network(carry, t, image, train=train)

        if self.remat:
            body = nn.remat(body)
        carry, maps = body(network, None, 0, image)
        stacks = [jax.tree.map(lambda x: x[None], maps)]
        if self.is_initializing():  # all layers come into being, which a loop cannot do
            for t in range(1, self.rounds):
                carry, maps = body(network, carry, t, image)
                stacks.append(jax.tree.map(lambda x: x[None], maps))
        elif self.rounds > 1:
            changing = self.is_mutable_collection("batch_stats")
            _, later = nn.scan(
                body,
                variable_broadcast="params" if changing else ["params", "batch_stats"],
                variable_carry="batch_stats" if changing else False,
                split_rngs={"params": False, "dropout": True},
                in_axes=(0, nn.broadcast),
                length=self.rounds - 1,
                unroll=self.unroll or self.rounds,  # more than there are: no loop at all
            )(network, carry, jnp.arange(1, self.rounds), image)
            stacks.append(later)
        out = {
            name: jnp.concatenate([stack[name] for stack in stacks if name in stack])
            for name in stacks[-1]
        }
        for name in ("query", "key"):
            if name in out:
                out[name] = out[name][-1]
        return out["rounds"][-1], out
