"""Feedback U-Net: a U-Net that runs T times, what one round found feeding the next.

Feedback U-Net (2020), section 3: class probabilities return to the input, ConvLSTMs remember the
rounds before, normalisations differ by round. Open points from its first author's released code
(ggEisuke/Feedback-U-Net). Feedback Attention (2020): the last feature map returns to the first one.
Both kinds of feedback and any placement of the memory combine.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.layers import connection as connections
from feedseg.layers import unet_pass
from feedseg.layers.connection import Connection
from feedseg.layers.conv import Conv, check_sides
from feedseg.layers.convlstm import ConvLSTM
from feedseg.layers.recurrent_conv import RecurrentConv
from feedseg.layers.round_norm import Norms

Array = jax.Array

UNITS = {"convlstm": "", "rcl_shared": "shared", "rcl_separate": "separate"}
# Fig. 4's locations: the block, and its convolution that has memory (0: both)
LOCATIONS = dict(a=("enc1", 1), b=("enc2", 1), c=("bottom", 0), d=("dec2", 2), e=("dec1", 2))
LAYOUTS = dict(none="", paper6_levels="abcde", paper6_top="ACE", code10="ABCDE")


def positions(layout: str) -> frozenset[str]:
    """Names of the convolutions that become units with memory (A3).

    layout: `none`; `paper6_levels`: the first convolution of blocks a and b, both of c, the last of
    d and e; `paper6_top`: both of the first, the bottom and the last block; `code10`: both of all
    five; or letters a...e of single locations, a capital meaning both convolutions of its block.
    Raises ValueError for anything else.
    """
    letters = LAYOUTS.get(layout, layout)
    if (not letters and layout != "none") or set(letters.lower()) - set(LOCATIONS):
        raise ValueError(
            f"layout={layout!r}: choose {', '.join(LAYOUTS)} or letters of a...e (capitals: both "
            "convolutions of the block)"
        )
    names = set()
    for letter in letters:
        block, index = LOCATIONS[letter.lower()]
        both = letter.isupper() or index == 0
        names |= {f"{block}_conv{i}" for i in ((1, 2) if both else (index,))}
    return frozenset(names)


def round_input(image: Array, probabilities: Array | None, how: str, classes: int) -> Array:
    """What the network sees: the image in round 1, then the probabilities of the last round (A1).

    image [N, H, W, C]; probabilities [N, H, W, K], None in round 1. how: `copy`: the image's
    channels repeated to max(C, K); `zero_pad`: filled up with zeros instead (probabilities always
    are); `separate_conv`: as they are, for first convolutions of their own; `concat`: the image in
    every round, and beside it the probabilities, zero in round 1.
    """
    if how not in ("copy", "zero_pad", "separate_conv", "concat"):
        raise ValueError(f"first_input={how!r}: choose copy, zero_pad, separate_conv or concat")
    if how == "concat":
        if probabilities is None:
            probabilities = jnp.zeros((*image.shape[:3], classes), image.dtype)
        return jnp.concatenate([image, probabilities], -1)
    x = image if probabilities is None else probabilities
    if how == "separate_conv":
        return x
    width = max(image.shape[-1], classes)
    if how == "copy" and probabilities is None:
        return x[..., jnp.arange(width) % x.shape[-1]]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])))


class _Settings(nn.Module):
    """Arguments of the network and of each of its rounds; `Model` says what they mean."""

    num_classes: int
    filters: tuple[int, ...]
    dropout: float
    extra_conv: bool
    conv_bias: bool
    bn_momentum: float
    bn_epsilon: float
    bn_rounds: str
    initializer: str
    rounds: int
    unroll: int
    remat: bool
    feedback: str
    first_input: str
    round1_grad: str
    unit: str
    layout: str
    carry_state: bool
    recurrent_activation: str
    unit_forget_bias: bool
    peephole: bool
    rcl_t: int
    connection: str
    location: str
    qk_div: int
    v_div: int
    kv_pool: int
    query_block: int
    output_norm: bool
    light_convs: int
    light_residual: bool
    se_biases: bool
    use_scale: bool


class Round(_Settings):
    """One pass through the U-Net; the weights are the same in all rounds."""

    @nn.compact
    def __call__(
        self, carry: dict | None, t: Array | int, image: Array, *, train: bool
    ) -> tuple[dict, dict]:
        """carry: what the round before left, None in round 1; t: rounds before this one.

        Returns what the next round needs, and this round's logits and maps to look at.
        """
        first, carry = carry is None, carry or {}
        memory: dict[str, tuple[Array, Array]] = {}
        parts = self._parts(carry.get("memory", {}), memory, t, first, train)
        block, before = unet_pass.first_block(self.filters), 1 + (self.location == "two_conv")
        if "top" in carry:
            top = first_map = carry["top"]
        else:
            x = image
            if self.feedback == "probabilities":
                x = round_input(
                    image, carry.get("probabilities"), self.first_input, self.num_classes
                )
            top = first_map = parts.conv(x, self.filters[0], f"{block}_conv1")
            if before == 2:
                top = parts.conv(top, self.filters[0], f"{block}_conv2")
        after, shown = top, {}
        if self.connection != "none" and not first:
            after, shown = self._connection()(top, carry["features"], t - 1, train=train)
            first_map = after if "top" in carry else first_map
        if before == 1:
            after = parts.conv(after, self.filters[0], f"{block}_conv2")
        features = unet_pass.below(parts, after, self.filters, self.extra_conv)
        logits = Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(
            features
        )
        left = self._left(logits, features, top, memory)
        return left, {"rounds": logits, "first_features": first_map.sum(-1), **shown}

    def _left(self, logits: Array, features: Array, top: Array, memory: dict) -> dict:
        """What the next round needs."""
        left = {}
        if self.feedback == "probabilities":
            left["probabilities"] = jax.nn.softmax(logits)
        if self.connection != "none":
            left["features"] = features
        if self.round1_grad == "stop":
            left = jax.lax.stop_gradient(left)
        if self._same_top():
            left["top"] = top
        return left | ({"memory": memory} if memory else {})

    def _same_top(self) -> bool:
        """Whether the first block gives the same map in every round, so that one time will do."""
        block = unet_pass.first_block(self.filters)
        return (
            self.feedback == "image"
            and self.connection != "none"
            and self.bn_rounds == "shared"
            and not {f"{block}_conv1", f"{block}_conv2"} & positions(self.layout)
        )

    def _connection(self) -> Connection:
        return Connection(
            kind=self.connection,
            use_bias=self.conv_bias,
            norms=self._norms()._replace(rounds=max(1, self.rounds - 1)),
            name="connection",
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(Connection)
                if field.name in _OWN_FIELDS
            },
        )

    def _norms(self) -> Norms:
        return Norms(self.rounds, self.bn_rounds, self.bn_momentum, self.bn_epsilon)

    def _parts(self, before: dict, after: dict, t, first: bool, train: bool) -> unet_pass.Parts:
        """The layers of a round; units take their state from `before` and leave it in `after`."""
        chosen, norms = positions(self.layout), self._norms()

        def conv(x: Array, features: int, name: str) -> Array:
            begins = name == f"{unet_pass.first_block(self.filters)}_conv1"
            own = self.first_input == "separate_conv" and begins and not first
            layer_name = f"{name}_probabilities" if own else name
            if name in chosen and self.unit != "convlstm":
                rcl = RecurrentConv(
                    features,
                    UNITS[self.unit],
                    self.rcl_t,
                    norms,
                    self.conv_bias,
                    self.initializer,
                    name=layer_name,
                )
                return rcl(x, t, train=train)
            if name in chosen:
                x, state = self._convlstm(features, layer_name)(x, before.get(name))
                if self.carry_state:
                    after[name] = state
            else:
                x = Conv(
                    features,
                    3,
                    use_bias=self.conv_bias,
                    before_norm=True,
                    initializer=self.initializer,
                    name=layer_name,
                )(x)
            return nn.relu(norms.build(f"{name}_norm")(x, t, train=train))

        return unet_pass.Parts(conv, self.dropout, self.initializer, train)

    def _convlstm(self, features: int, name: str) -> ConvLSTM:
        return ConvLSTM(
            features, 3, self.recurrent_activation, self.unit_forget_bias, self.peephole, name=name
        )


_OWN_FIELDS = {field.name for field in dataclasses.fields(_Settings)} - {"parent", "name"}


class Model(_Settings):
    """U-Net of `rounds` rounds with feedback.

    The U-Net: filters, dropout, extra_conv, conv_bias, initializer, bn_* as in the plain `unet`.
    bn_rounds (A4): normalisations `separate` by round, `stats_only` or `shared`.
    rounds: T. unroll: rounds written out one after the other in the compiled program, 0 all (on the
    CPU a loop over convolutions is 10 times slower); remat: compute each round again for the
    gradient instead of keeping its maps.

    feedback: what the next round sees, class `probabilities` (first_input: see `round_input`) or
    the `image` again. round1_grad: `flow`: gradients of a round run through the rounds before it;
    `stop`: not through what they feed back (A13).
    unit: what stands at the positions of `layout` (see `positions`): `convlstm`, or a recurrent
    convolution, `rcl_shared` | `rcl_separate`, of rcl_t + 1 passes and no memory of other rounds.
    carry_state: the ConvLSTMs' state goes from round to round (the paper), or starts at zero in
    each (the released code, A2). recurrent_activation, unit_forget_bias, peephole: see `ConvLSTM`.
    connection: how the map before the classifier returns to the first block's map after its first
    (location `one_conv`) or both (`two_conv`) convolutions; its other arguments: see `Connection`.

    out: `rounds` [T, N, H, W, K], the logits of every round, the last being the result;
    `first_features` [T, N, H, W], the sum of the first layer's channels (of the fed-back map where
    it takes its place); with attention, of the last round, `query` and `key` [N, pixels, D].
    """

    @property
    def stride(self) -> int:
        return 2 ** (len(self.filters) - 1)

    @property
    def halo(self) -> int:
        chosen = positions(self.layout)
        passes = {"convlstm": 1, "rcl_shared": 1 + self.rcl_t, "rcl_separate": 1 + self.rcl_t}
        one = unet_pass.reach(
            self.filters,
            lambda name: passes[self.unit] if name in chosen else 1,
            self.extra_conv,
        )
        later = 0  # what every round after the first adds
        if self.feedback == "probabilities" or (chosen and self.carry_state):
            later = one
        if self.connection != "none":  # leads in behind the first block's first convolutions
            skipped = 1 if self.location == "one_conv" else 2
            light = self.light_convs if self.connection == "light" else 0
            later = max(later, one - skipped + light)
        reach = one + (self.rounds - 1) * later
        return -(-reach // self.stride) * self.stride

    @property
    def whole_image(self) -> bool:
        """Whether a pixel's result depends on all others, or the weights on the image's size."""
        return self.connection in connections.GLOBAL or self.peephole

    def _check(self, image: Array) -> None:
        check_sides(image, self.stride)
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
        settings = {name: getattr(self, name) for name in _OWN_FIELDS}
        network = Round(**settings, name="round")

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
