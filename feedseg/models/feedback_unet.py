"""Feedback U-Net: a U-Net that runs T times, what one round found feeding the next.

Feedback U-Net (2020), section 3: class probabilities return to the input, ConvLSTMs remember the
rounds before, normalizations differ by round. Open points from its first author's released code
(ggEisuke/Feedback-U-Net). Feedback Attention (2020): the last feature map returns to the first one.
Both kinds of feedback and any placement of the memory combine.
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
    """U-Net of `rounds` rounds with feedback.

    The U-Net: filters, dropout, extra_conv, conv_bias, initializer, bn_* as in the plain `unet`.
    bn_rounds: normalizations `separate` by round, `stats_only` or `shared`.
    rounds: T. unroll: rounds written out one after the other in the compiled program, 0 all (on the
    CPU a loop over convolutions is 10 times slower); remat: compute each round again for the
    gradient instead of keeping its maps.

    feedback: what the next round sees, class `probabilities` (first_input: see
    `unet_round.round_input`) or
    the `image` again. round1_grad: `flow`: gradients of a round run through the rounds before it;
    `stop`: not through what they feed back.
    unit: what stands at the positions of `layout` (see `unet_round.positions`): `convlstm`, or a
    recurrent convolution, `rcl_shared` | `rcl_separate`, of rcl_t + 1 passes and no memory of other
    rounds; rcl_pass_norms: see `RecurrentConv`.
    carry_state: the ConvLSTMs' state goes from round to round (the paper), or starts at zero in
    each (the released code). recurrent_activation, unit_forget_bias, peephole: see `ConvLSTM`.
    connection: how the map before the classifier returns to the first block's map after its first
    (location `one_conv`) or both (`two_conv`) convolutions; its other arguments: see `Connection`.

    out: `rounds` [T, N, H, W, K], the logits of every round, the last being the result;
    `first_features` [T, N, H, W], the sum of the first layer's channels (of the fed-back map where
    it takes its place); with attention, of the last round, `query` and `key` [N, pixels, D].
    """

    @property
    def reach(self) -> int:
        chosen = positions(self.layout)
        passes = {"convlstm": 1, "rcl_shared": 1 + self.rcl_t, "rcl_separate": 1 + self.rcl_t}
        one = encoder_decoder.reach(
            self.filters,
            lambda name: passes[self.unit] if name in chosen else 1,
            self.extra_conv,
        )
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
        """Whether a pixel's result depends on all others, or the weights on the image's size."""
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
        carry, shown = body(network, None, 0, image)
        every = [jax.tree.map(lambda x: x[None], shown)]
        if self.is_initializing():  # all layers come into being, which a loop cannot do
            for t in range(1, self.rounds):
                carry, shown = body(network, carry, t, image)
                every.append(jax.tree.map(lambda x: x[None], shown))
        elif self.rounds > 1:
            changing = self.is_mutable_collection("batch_stats")
            _, more = nn.scan(
                body,
                variable_broadcast="params" if changing else ["params", "batch_stats"],
                variable_carry="batch_stats" if changing else False,
                split_rngs={"params": False, "dropout": True},
                in_axes=(0, nn.broadcast),
                length=self.rounds - 1,
                unroll=self.unroll or self.rounds,  # one more than there are: no loop at all
            )(network, carry, jnp.arange(1, self.rounds), image)
            every.append(more)
        out = {
            name: jnp.concatenate([part[name] for part in every if name in part])
            for name in every[-1]
        }
        for name in ("query", "key"):
            if name in out:
                out[name] = out[name][-1]
        return out["rounds"][-1], out
