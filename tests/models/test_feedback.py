"""Feedback networks: rounds, memory, what is fed back, and their combinations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models import feedback_unet
from feedseg.models.feedback import round as unet_round
from feedseg.models.layers import encoder_decoder
from feedseg.runtime.errors import UserError
from tests.support.networks import FAST_COMPILE, build, random_variables

SMALL = dict(filters=(3, 4), dropout=0.0)
MEMORY = dict(SMALL, layout="ace")  # two levels have no blocks b and d


def image(channels: int = 1, side: int = 8, seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random((2, side, side, channels)), jnp.float32)


def train_outputs(model, variables, x):
    """Logits, extra outputs, changed statistics; and gradients of a sum over everything."""

    def total(params):
        (logits, out), changed = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(logits**2) + jnp.mean(out["rounds"] ** 3), (logits, out, changed)

    run = jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=FAST_COMPILE)
    (_, (logits, out, changed)), gradients = run(variables["params"])
    return logits, out["rounds"], changed["batch_stats"], gradients


def assert_close(have, want, tolerance: float = 1e-5) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=tolerance), have, want
    )


# Rounds -----------------------------------------------------------------------------------------


class Loop(feedback_unet.Model):
    """The same network with its rounds in a Python loop."""

    @nn.compact
    def __call__(self, image, *, train):
        network = unet_round.Round(**self.settings(), name="round")
        carry, every = None, []
        for t in range(self.rounds):
            carry, shown = network(carry, t, image, train=train)
            every.append(shown["rounds"])
        return every[-1], {"rounds": jnp.stack(every)}


def loop_of(model) -> Loop:
    return Loop(**model.settings(), parent=None)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(dict(unroll=0, layout="ace"), marks=pytest.mark.long),
        dict(unroll=1, layout="a"),
        pytest.param(
            dict(unroll=1, bn_rounds="shared", remat=True, layout="none", connection="self"),
            marks=pytest.mark.long,
        ),
    ],
    ids=["written out", "rolled", "rolled, computed again, attention"],
)
def test_the_scan_is_a_loop(changes):
    """Values, statistics and gradients; one set of variables for all forms."""
    model = build("feedback_unet", 2, rounds=3, **SMALL, **changes)
    x = image()
    variables = random_variables(model, x.shape)
    for have, want in zip(
        train_outputs(model, variables, x), train_outputs(loop_of(model), variables, x), strict=True
    ):
        assert_close(have, want)


@pytest.mark.parametrize(("rounds", "unroll", "loops"), [(2, 0, 0), (3, 0, 0), (4, 1, 1)])
def test_rounds_written_out_leave_no_loop(rounds, unroll, loops):
    """A loop around convolutions makes them 10 times slower on the CPU."""
    model = build("feedback_unet", 2, rounds=rounds, unroll=unroll, layout="none", **SMALL)
    x = image()
    variables = random_variables(model, x.shape)
    program = jax.jit(lambda v, x: model.apply(v, x, train=False)[0]).lower(variables, x)
    assert program.as_text().count("stablehlo.while") == loops


def test_one_round_is_a_unet():
    """With one round, no memory and gray input nothing is left of the feedback."""
    model = build("feedback_unet", 1, rounds=1, layout="none", **SMALL)
    plain = build("unet", 1, extra_conv=True, **SMALL)
    x = image()
    variables = random_variables(model, x.shape)
    own = jax.tree.map(jnp.copy, plain.init(jax.random.key(0), x, train=False))
    for name, leaf in variables["params"]["round"].items():
        if name.endswith("_norm"):
            part = own["params"][name[:-5]]["norm"]
            part.update(scale=leaf["scale"][0], bias=leaf["bias"][0])
            stats = variables["batch_stats"]["round"][name]
            own["batch_stats"][name[:-5]]["norm"] = {k: v[0] for k, v in stats.items()}
        elif f"{name}_norm" in variables["params"]["round"]:
            own["params"][name]["conv"] = leaf
        else:
            own["params"][name] = leaf
    logits, out = model.apply(variables, x, train=False)
    assert out["rounds"].shape == (1, *logits.shape)
    np.testing.assert_allclose(logits, plain.apply(own, x, train=False)[0], atol=1e-5)


@pytest.mark.parametrize("more", [1, 2, 4])
def test_shared_normalizations_serve_any_number_of_rounds(more):
    two = build("feedback_unet", 2, bn_rounds="shared", **MEMORY)
    other = build("feedback_unet", 2, bn_rounds="shared", rounds=more, **MEMORY)
    x = image()
    variables = random_variables(two, x.shape)
    first = two.apply(variables, x, train=False)[1]["rounds"]
    rounds = other.apply(variables, x, train=False)[1]["rounds"]
    assert len(rounds) == more
    assert_close(rounds[:2], first[:more], 1e-6)


# Memory -----------------------------------------------------------------------------------------


def gradients_by_name(**changes) -> dict[str, np.ndarray]:
    model = build("feedback_unet", 2, **MEMORY, **changes)
    x = image()
    gradients = train_outputs(model, random_variables(model, x.shape), x)[-1]
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize("carry", [True, False])
def test_state_that_is_not_carried_leaves_half_of_the_lstm_dead(carry):
    """As found in the released code: recurrent kernels and forget gates get no gradient."""
    gradients = gradients_by_name(carry_state=carry)
    recurrent = {name: g for name, g in gradients.items() if "recurrent_kernel" in name}
    assert len(recurrent) == 4
    for name, gradient in recurrent.items():
        assert gradient.any() == carry, name
        kernel = gradients[name.replace("recurrent_kernel", "kernel")]
        f = kernel.shape[-1] // 4
        assert kernel[..., f : 2 * f].any() == carry, name
        assert kernel[..., :f].any() and kernel[..., 2 * f :].any()


def test_positions():
    six = unet_round.positions("paper6_levels")
    assert six == {
        "enc1_conv1", "enc2_conv1", "bottom_conv1", "bottom_conv2", "dec2_conv2", "dec1_conv2",
    }  # fmt: skip
    assert len(unet_round.positions("code10")) == 10
    assert unet_round.positions("none") == set()
    assert unet_round.positions("A") == {"enc1_conv1", "enc1_conv2"}
    assert unet_round.positions("paper6_top") == {
        f"{block}_conv{i}" for block in ("enc1", "bottom", "dec1") for i in (1, 2)
    }
    for wrong in ("", "f", "paper7"):
        with pytest.raises(ValueError, match="letters of"):
            unet_round.positions(wrong)


# What is fed back -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["copy", "zero_pad", "separate_conv", "concat"])
@pytest.mark.parametrize("channels", [1, 3])
def test_round_input(how, channels):
    x = image(channels, side=2)
    p = jax.nn.softmax(image(2, side=2, seed=1))
    first = unet_round.round_input(x, None, how, 2)
    later = unet_round.round_input(x, p, how, 2)
    zeros = jnp.zeros((2, 2, 2, 2))
    if how == "separate_conv":
        want = x, p
    elif how == "concat":
        want = jnp.concatenate([x, zeros], -1), jnp.concatenate([x, p], -1)
    elif channels == 3:  # color has more channels than there are classes
        want = x, jnp.concatenate([p, zeros[..., :1]], -1)
    else:
        rest = x if how == "copy" else zeros[..., :1]
        want = jnp.concatenate([x, rest], -1), p
    np.testing.assert_array_equal(first, want[0])
    np.testing.assert_array_equal(later, want[1])


def test_the_second_round_sees_only_probabilities():
    """Without memory the image reaches round 2 through the probabilities of round 1 alone."""
    model = build("feedback_unet", 2, layout="none", round1_grad="stop", **SMALL)
    x = image()
    variables = random_variables(model, x.shape)

    def last(x):
        return model.apply(variables, x, train=False)[0].sum()

    assert not np.asarray(jax.grad(last)(x)).any()


@functools.cache
def traced_layers(**changes) -> list[str]:
    """Names of the convolutions in the order in which they are computed."""
    model, seen = build("feedback_attention", 2, **{**SMALL, **changes}), []

    def note(next_function, args, kwargs, context):
        layer = type(context.module).__name__ in ("Conv", "ConvLSTM")
        if layer and context.method_name == "__call__":
            seen.append(context.module.name)
        return next_function(*args, **kwargs)

    variables = random_variables(model, image().shape)
    with nn.intercept_methods(note):
        model.apply(variables, image(), train=False)
    return seen


@pytest.mark.parametrize(
    "changes, once",
    [
        (dict(), ("enc1_conv1", "enc1_conv2")),
        (dict(location="one_conv"), ("enc1_conv1",)),
        (dict(bn_rounds="separate"), ()),
        (dict(layout="a"), ()),
        (dict(feedback="probabilities"), ()),
    ],
)
def test_the_first_map_is_computed_once_where_it_is_the_same(changes, once):
    layers = traced_layers(**changes)
    every = layers.count("bottom_conv1")  # the scan traces its body more than once
    assert every > 1
    for name in ("enc1_conv1", "enc1_conv2"):
        assert layers.count(name) == (1 if name in once else every)


@pytest.mark.parametrize("stop", [True, False])
def test_gradients_through_round_1(stop):
    """With `stop` the features fed back are constants."""
    changes = dict(round1_grad="stop" if stop else "flow", connection="add", **SMALL)
    model = build("feedback_attention", 2, **changes)
    x = image()
    variables = random_variables(model, x.shape)

    def last_only(params):
        return jnp.sum(model.apply({**variables, "params": params}, x, train=False)[0] ** 2)

    def detached(params):
        """Round 2 by hand, what round 1 left being a constant."""
        network = unet_round.Round(**model.settings(), parent=None)
        own = {"params": params["round"], "batch_stats": variables["batch_stats"]["round"]}
        carry, _ = network.apply(own, None, 0, x, train=False)
        carry = {**carry, "features": jax.lax.stop_gradient(carry["features"])}
        return jnp.sum(network.apply(own, carry, 1, x, train=False)[1]["rounds"] ** 2)

    found = jax.jit(jax.grad(last_only))(variables["params"])
    constant = jax.jit(jax.grad(detached))(variables["params"])
    if stop:
        assert_close(found, constant)
    else:
        different = [
            not np.allclose(a, b, rtol=1e-3)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(constant), strict=True)
        ]
        assert any(different)


# Arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(unit="lstm"), "unit='lstm': choose convlstm"),
        (dict(feedback="features"), "choose probabilities, image"),
        (dict(connection="gate"), "choose none, self"),
        (dict(location="three_conv"), "choose one_conv, two_conv"),
        (dict(round1_grad="half"), "choose flow, stop"),
        (dict(first_input="tile"), "choose copy, zero_pad"),
        (dict(rounds=0), "from 1 to 100"),
        (dict(layout="abc"), "2 levels have no enc2_conv1"),
        (dict(bn_rounds="none"), "choose separate"),
    ],
)
def test_unknown_arguments(changes, message):
    with pytest.raises((ValueError, UserError), match=message):
        model = build("feedback_unet", 2, **{**MEMORY, **changes})
        jax.eval_shape(lambda: model.init(jax.random.key(0), image(), train=False))


def test_peepholes_have_the_size_of_the_image():
    model = build("feedback_unet", 2, layout="a", peephole=True, **SMALL)
    assert model.whole_image
    variables = random_variables(model, (1, 8, 8, 1))
    assert variables["params"]["round"]["enc1_conv1"]["peephole_o"].shape == (8, 8, 3)
    with pytest.raises(Exception, match="peephole"):
        model.apply(variables, image(side=16), train=False)


def test_receptive_field_counts_every_pass():
    assert encoder_decoder.reach((1, 1)) == 2 * 2 + 4 + 1
    thrice = encoder_decoder.reach((1, 1), lambda name: 3 if "bottom" in name else 1)
    assert thrice == 12 + 4 + 1
    one_round = dict(rounds=1, filters=(1, 1), layout="c", unit="rcl_shared")
    assert build("feedback_unet", **one_round).reach == thrice + 1  # extra
