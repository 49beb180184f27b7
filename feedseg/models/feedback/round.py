"""One round of a feedback network: a pass through the U-Net, from the state of the round before.

Feedback U-Net (2020), section 3, and Feedback Attention (2020), section 3; see
`feedseg.models.feedback_unet`.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.feedback.connection import Connection
from feedseg.models.feedback.convlstm import ConvLSTM
from feedseg.models.feedback.recurrent_conv import RecurrentConv
from feedseg.models.feedback.round_norm import NormConfig
from feedseg.models.layers import encoder_decoder
from feedseg.models.layers.conv import Conv
from feedseg.models.layers.network import Network
from feedseg.models.layers.shapes import check

Array = jax.Array

UNITS = {"convlstm": "", "rcl_shared": "shared", "rcl_separate": "separate"}
# Fig. 4's locations: the block, and its convolution that has memory (0: both)
LOCATIONS = dict(a=("enc1", 1), b=("enc2", 1), c=("bottom", 0), d=("dec2", 2), e=("dec1", 2))
CONNECTION_FIELDS = (  # those that have the same name in the connection
    *("qk_div", "v_div", "kv_pool", "query_block", "output_norm"),
    *("light_convs", "light_residual", "se_biases", "use_scale", "initializer"),
)
LAYOUTS = dict(none="", paper6_levels="abcde", paper6_top="ACE", code10="ABCDE")


def positions(layout: str) -> frozenset[str]:
    """Names of the convolutions that become units with memory.

    layout: `none`; or a reading of the paper's "six ConvLSTMs" at a...e of Fig. 4: `paper6_levels`,
    one at a and b (first convolution of the block), d and e (last one), two at c, which fits "the
    image size is the biggest" at a and e; `paper6_top`, both convolutions of the first, the bottom
    and the last block, which fits "in location a, b, d and e, resolution is the highest"; `code10`,
    both of all five blocks, the released code. Or letters a...e of single locations, a capital
    meaning both convolutions of its block. Raises ValueError for anything else.
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
    """Input of the network: the image in round 1, then the probabilities of the last round.

    image [N, H, W, C]; probabilities [N, H, W, K], None in round 1. The paper leaves open how C and
    K channels enter one convolution. how: `copy` (the released code): the image's channels repeated
    to max(C, K); `zero_pad`: filled up with zeros instead (probabilities always are);
    `separate_conv`: as they are, for first convolutions of their own; `concat`: the image in every
    round, and beside it the probabilities, zero in round 1.
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


class Settings(Network):
    """Fields of a feedback network and its rounds; the defaults are those of Feedback U-Net."""

    # the U-Net, as in `unet`
    filters: tuple[int, ...] = (8, 16, 32, 64, 128)
    dropout: float = 0.5
    extra_conv: bool = True
    conv_bias: bool = True
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    initializer: str = "keras"  # keras | torch
    # the rounds
    rounds: int = 2  # T
    bn_rounds: str = "separate"  # separate | stats_only | shared: normalizations by round
    unroll: int = 0  # rounds written out in the compiled program, 0: all; loops are slow on the CPU
    remat: bool = False  # compute rounds again for the gradient: less memory, a third more time
    # what the next round sees
    feedback: str = "probabilities"  # probabilities | image: the last round's result or the image
    first_input: str = "copy"  # copy | zero_pad | separate_conv | concat: see `round_input`
    round1_grad: str = "flow"  # flow | stop: gradients through what is fed back
    # memory
    unit: str = "convlstm"  # convlstm | rcl_shared | rcl_separate (recurrent convolutions)
    layout: str = "paper6_levels"  # where the units stand: see `positions`
    carry_state: bool = True  # ConvLSTM states from round to round; False: zero at each start
    recurrent_activation: str = "hard_sigmoid"  # hard_sigmoid | sigmoid
    unit_forget_bias: bool = True  # bias of the forget gates starts at 1
    peephole: bool = False  # weights of the image's size from the cell state to the gates
    rcl_t: int = 2  # recurrent convolutions: passes after the first
    rcl_pass_norms: str = "shared"  # shared | separate: normalizations of the passes
    # the connection from the last map of a round to the first block of the next: see `Connection`
    connection: str = "none"  # none | self | source_target | add | conv1x1 | se | light
    location: str = "two_conv"  # one_conv | two_conv: convolutions before the fed-back map joins
    qk_div: int = 8  # attention: queries and keys have 1/8 of the channels, at least 1
    v_div: int = 2  # attention: values have half of the channels
    kv_pool: int = 1  # attention: keys and values are maxima over squares, 1 | 2 | 4 px
    query_block: int = 1024  # attention: queries at once; memory is 4 bytes x this x keys
    output_norm: bool = True  # attention: normalize the output convolution
    light_convs: int = 1  # light attention: 1 | 2 convolutions
    light_residual: bool = False  # light attention: G + G M instead of G M
    se_biases: bool = False  # squeeze and excitation: biases of its two layers
    use_scale: bool = True  # a learned factor that starts at 0

    def settings(self, *names: str) -> dict:
        """Fields by name, all of them without names."""
        names = names or {field.name for field in dataclasses.fields(Settings)} - {"parent", "name"}
        return {name: getattr(self, name) for name in names}


class Round(Settings):
    """One pass through the U-Net; the weights are the same in all rounds."""

    @nn.compact
    def __call__(
        self, carry: dict | None, t: Array | int, image: Array, *, train: bool
    ) -> tuple[dict, dict]:
        """carry: state of the round before, None in round 1; t: rounds before this one.

        Returns the state for the next round, and this round's logits and maps for inspection.
        """
        check("round", image=(image, "N H W C"))
        first, carry = carry is None, carry or {}
        memory: dict[str, tuple[Array, Array]] = {}
        conv = self._conv(carry.get("memory", {}), memory, t, first, train)
        block, before = encoder_decoder.first_block(self.filters), 1 + (self.location == "two_conv")
        if "top" in carry:
            top = first_map = carry["top"]
        else:
            x = image
            if self.feedback == "probabilities":
                x = round_input(
                    image, carry.get("probabilities"), self.first_input, self.num_classes
                )
            top = first_map = conv(x, self.filters[0], f"{block}_conv1")
            if before == 2:
                top = conv(top, self.filters[0], f"{block}_conv2")
        after, maps = top, {}
        if self.connection != "none" and not first:
            after, maps = self._connection()(top, carry["features"], t - 1, train=train)
            first_map = after if "top" in carry else first_map
        if before == 1:
            after = conv(after, self.filters[0], f"{block}_conv2")
        up = encoder_decoder.up_conv(self.initializer)
        parts = encoder_decoder.UnetParts(encoder_decoder.pair(conv), up, train, self.dropout)
        features = encoder_decoder.below(parts, after, self.filters)
        if self.extra_conv:
            features = conv(features, self.filters[0], "extra_conv")
        logits = Conv(self.num_classes, 1, initializer=self.initializer, name="classifier")(
            features
        )
        state = self._next_state(logits, features, top, memory)
        return state, {"rounds": logits, "first_features": first_map.sum(-1), **maps}

    def _next_state(self, logits: Array, features: Array, top: Array, memory: dict) -> dict:
        """What the next round needs."""
        state = {}
        if self.feedback == "probabilities":
            state["probabilities"] = jax.nn.softmax(logits)
        if self.connection != "none":
            state["features"] = features
        if self.round1_grad == "stop":
            state = jax.lax.stop_gradient(state)
        if self._same_top():
            state["top"] = top
        return state | ({"memory": memory} if memory else {})

    def _same_top(self) -> bool:
        """Whether the first block gives the same map in every round and runs in the first only."""
        block = encoder_decoder.first_block(self.filters)
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
            **self.settings(*CONNECTION_FIELDS),
        )

    def _norms(self) -> NormConfig:
        return NormConfig(self.rounds, self.bn_rounds, self.bn_momentum, self.bn_epsilon)

    def _conv(
        self, before: dict, after: dict, t, first: bool, train: bool
    ) -> encoder_decoder.Layer:
        """The convolution of a name or its unit, whose state goes from `before` to `after`."""
        chosen, norms = positions(self.layout), self._norms()

        def conv(x: Array, features: int, name: str) -> Array:
            begins = name == f"{encoder_decoder.first_block(self.filters)}_conv1"
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
                    pass_norms=self.rcl_pass_norms,
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
            return norms.build(f"{name}_norm")(x, t, train=train, relu=True)

        return conv

    def _convlstm(self, features: int, name: str) -> ConvLSTM:
        return ConvLSTM(
            features, 3, self.recurrent_activation, self.unit_forget_bias, self.peephole, name=name
        )
