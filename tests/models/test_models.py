"""What every network must do: a walk through feedseg.models, so that a new file is tested too."""

import dataclasses
import importlib
import itertools
import re

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from feedseg import models
from feedseg.models.layers.network import Network
from feedseg.runtime.errors import UserError
from feedseg.training import losses
from tests.support.networks import NARROW, batch, build, compiled, random_variables, shapes_of

FEEDBACK = dict(
    extra_conv=(True, False),
    conv_bias=(True, False),
    bn_rounds=("separate", "stats_only", "shared"),
    initializer=("keras", "torch"),
    remat=(False, True),
    feedback=("probabilities", "image"),
    first_input=("copy", "zero_pad", "separate_conv", "concat"),
    round1_grad=("flow", "stop"),
    unit=("convlstm", "rcl_shared", "rcl_separate"),
    rcl_pass_norms=("shared", "separate"),
    layout=("paper6_levels", "none", "paper6_top", "code10", "a", "b", "c", "d", "e", "abde"),
    carry_state=(True, False),
    recurrent_activation=("hard_sigmoid", "sigmoid"),
    unit_forget_bias=(True, False),
    peephole=(False, True),
    connection=("none", "self", "source_target", "add", "conv1x1", "se", "light"),
    location=("two_conv", "one_conv"),
    output_norm=(True, False),
    light_residual=(False, True),
    se_biases=(False, True),
    use_scale=(True, False),
)

# Every value of every argument that is not a plain number, by network.
SWITCHES = {
    "unet": dict(extra_conv=(False, True), conv_bias=(True, False), initializer=("keras", "torch")),
    "aep_net": {},
    "aep": dict(
        penultimate=("n_filters", 16),
        multiplier=(1, 2, 3),
        source=("penultimate", "output", "softmax", "argmax"),
        translate=("code", "eq1"),
        net2_bn=("per_call", "joint"),
        ensemble=("learned", "fixed", "stacked", "single"),
        awel_input=("logits", "probabilities"),
        awel_init=("torch", "mean"),
    ),
    "kato_unet": {},
    "ru_net": dict(
        kernel=("shared", "separate", "unshared_per_step"),
        pass_norms=("shared", "separate"),
        residual=(False, True),
        up=("deconv", "nearest"),
        conv_bias=(True, False),
        initializer=("keras", "torch"),
    ),
    "unet_original": dict(up_activation=(True, False), border=("mirror",)),  # none: below
    "blood_unet": dict(extra_conv=(True, False), initializer=("keras", "torch")),
    "unet_plus_plus": dict(form=("torch", "keras", "zju"), deep_supervision=(False, True)),
    "attention_unet": dict(form=("lee", "oktay"), deep_supervision=(False,)),  # True: below
    "unet3plus": dict(deep_supervision=(False, True)),
    "saunet": dict(canny_source=("grey255", "as_released"), initializer=("torch", "keras", "he")),
    "sa_unet": dict(attention=(True, False), initializer=("keras", "torch", "he")),
    "feedback_unet": FEEDBACK,
    # the rest is the network above
    "feedback_attention": {
        key: (models.defaults("feedback_attention")[key],)
        for key in FEEDBACK
        if key not in ("connection", "location", "output_norm", "use_scale")
    }
    | dict(
        connection=("self", "source_target", "add", "conv1x1", "se", "light"),
        location=FEEDBACK["location"],
        output_norm=FEEDBACK["output_norm"],
        use_scale=FEEDBACK["use_scale"],
    ),
}

TINY = dict(filters=(2, 3, 4))
SECOND = common.model("feedback_unet", **TINY)
COMBINATIONS = [
    ("ru_net", dict(TINY, kernel="separate", residual=True)),
    ("unet_plus_plus", dict(TINY, form="keras", deep_supervision=True)),
    ("unet_plus_plus", dict(TINY, form="zju", deep_supervision=True)),
    ("attention_unet", dict(form="oktay", deep_supervision=True)),
    ("attention_unet", dict(form="oktay", deep_supervision=True, gates=2)),
    ("feedback_unet", dict(TINY, rounds=4, connection="self", bn_rounds="shared")),
    ("feedback_unet", dict(TINY, rounds=3, unroll=1, connection="source_target")),
    ("feedback_unet", dict(TINY, feedback="image", connection="light", light_convs=2)),
    ("feedback_unet", dict(TINY, unit="rcl_separate", rcl_pass_norms="separate", connection="se")),
    ("feedback_unet", dict(TINY, first_input="separate_conv", layout="A", rounds=3)),
    ("feedback_attention", dict(TINY, layout="abde", location="one_conv", kv_pool=4)),
    ("feedback_attention", dict(TINY, feedback="probabilities", rounds=3, round1_grad="flow")),
    ("feedback_attention", dict(filters=(64, 128, 256, 512, 1024))),
    ("aep", dict(network2=SECOND)),
    ("aep", dict(network2=SECOND, net2_bn="joint", multiplier=2)),
    ("aep", dict(network2=SECOND, ensemble="stacked")),
    ("aep", dict(network2=SECOND, ensemble="single")),
    ("aep", dict(network2={**SECOND, "connection": "self", "rounds": 3}, ensemble="fixed")),
    ("aep", dict(network2=common.model("feedback_attention", **TINY))),
    ("aep", dict(network2=common.model("unet", **TINY))),
    ("aep", dict(network2=common.model("kato_unet", **TINY), net2_bn="joint")),
]


# Folder and config ------------------------------------------------------------------------------


def test_a_new_file_is_seen(tmp_path, monkeypatch):
    (tmp_path / "brand_new.py").write_text("")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "brand_new" in models.names()


@pytest.mark.parametrize("name", models.names())
def test_arguments_are_those_of_the_config(name):
    """The config has all arguments and no others, with their defaults, which are read from the
    source; their switches are listed in this file."""
    config = models.defaults(name)
    model = importlib.import_module(f"feedseg.models.{name}").Model(num_classes=2)
    fields = {field.name for field in dataclasses.fields(model)} - {"parent", "name", "num_classes"}
    assert config == {"name": name, **{field: getattr(model, field) for field in fields}}
    assert isinstance(model, Network) and model.num_classes == 2
    switches = {k for k, v in config.items() if k != "name" and isinstance(v, str | bool)}
    assert switches <= set(SWITCHES[name]), "a switch without its values in SWITCHES"
    for key, values in SWITCHES[name].items():
        assert values[0] == config[key], "the default stands first"


def test_what_does_not_fit_is_the_users_error():
    with pytest.raises(UserError, match="did you mean 'unet'"):
        models.build(2, dict(name="unett"))
    with pytest.raises(UserError, match="does not fit network 'aep_net'"):
        models.build(2, dict(models.defaults("aep_net"), depth=3))
    with pytest.raises(UserError, match="did you mean 'unet'"):
        models.defaults("unett")


@pytest.mark.parametrize(
    ("name", "field"), [("ru_net", "pass_norms"), ("feedback_unet", "rcl_pass_norms")]
)
def test_models_from_before_a_field_was_added_are_what_they_were(name, field):
    older = models.defaults(name)
    assert older.pop(field) == "shared"
    assert models.build(2, older) == models.build(2, models.defaults(name))


# Shapes -----------------------------------------------------------------------------------------


def assert_contract(model, image_shape: tuple[int, ...]) -> None:
    """Shapes of the logits and of everything in `out`."""
    (logits, out), variables = shapes_of(model, image_shape)
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    chex.assert_trees_all_equal_shapes(
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image), (logits, out)
    )
    assert {"params"} <= set(variables) <= {"params", "batch_stats"}  # not all normalize
    map_shape = (*image_shape[:3], model.num_classes)
    chex.assert_shape(logits, map_shape)
    for name, value in losses.named_outputs(logits, out).items():
        chex.assert_shape(value, (None, *map_shape) if name in losses.STACKS else map_shape)
    chex.assert_type(jax.tree.leaves((variables, logits, out)), jnp.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", models.names())
def test_shapes(name, channels):
    model = build(name, num_classes=3)
    assert model.halo % model.stride == 0
    assert_contract(model, (2, 2 * model.stride, 3 * model.stride, channels))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, value)
        for name, switches in SWITCHES.items()
        for key, values in switches.items()
        for value in values[1:]
    ],
)
def test_shapes_of_every_switch(name, key, value):
    levels = TINY if name.startswith("feedback") else {}
    model = build(name, num_classes=3, **levels, **{key: value})
    assert_contract(model, (1, model.stride, model.stride, 3))


@pytest.mark.parametrize(("name", "changes"), COMBINATIONS)
def test_shapes_of_combinations(name, changes):
    model = build(name, num_classes=3, **changes)
    assert model.halo % model.stride == 0
    assert_contract(model, (1, model.stride, 2 * model.stride, 1))


def test_outputs_of_a_second_network_with_rounds():
    """Its earlier rounds filter by filter, in the order of the members, joint or call by call."""
    network2 = {**SECOND, "rounds": 3, "filters": (2,), "layout": "none"}
    model = build("aep", 2, network2=network2, dropout=0.0)
    joint = build("aep", 2, network2=network2, dropout=0.0, net2_bn="joint")
    image, _ = batch(model)
    variables = random_variables(model, image.shape)
    logits, out = model.apply(variables, image, train=False)
    assert out["member_rounds"].shape == (2 * 2, *logits.shape)
    same = joint.apply(variables, image, train=False)[1]  # no statistics in evaluation
    for name in ("members", "member_rounds"):
        np.testing.assert_allclose(out[name], same[name], atol=1e-5)


@pytest.mark.parametrize("name", models.names())
def test_a_side_that_is_no_multiple_of_the_stride_is_refused(name):
    model = build(name)
    for height, width in itertools.permutations((2 * model.stride, model.stride + 1)):
        with pytest.raises(ValueError, match=f"multiples of {model.stride}"):
            shapes_of(model, (1, height, width, 1))


@pytest.mark.parametrize("name", models.names())
def test_bfloat16_stays_and_statistics_do_not(name):
    model = models.build(2, NARROW.get(name, models.defaults(name)))
    image = jax.ShapeDtypeStruct((2, model.stride, model.stride, 1), jnp.bfloat16)
    _, variables = shapes_of(model, image.shape)

    def forward(variables, image, key):
        params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), variables["params"])
        return model.apply(
            {**variables, "params": params},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )

    (logits, _), changed = jax.eval_shape(forward, variables, image, jax.random.key(0))
    assert logits.dtype == jnp.bfloat16
    chex.assert_type(jax.tree.leaves(changed), jnp.float32)


# A step -----------------------------------------------------------------------------------------


def slashed(tree) -> dict[str, jax.Array]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


EACH = [
    pytest.param(name, marks=pytest.mark.long if name == "saunet" else ())
    for name in models.names()
]


@pytest.mark.parametrize("name", EACH)
def test_a_training_step(name):
    """Finite gradients for everything but biases that have no effect; statistics change."""
    model, train, _ = compiled(name)
    image, labels = batch(model)
    variables = random_variables(model, image.shape)
    (loss, logits, out, stats), gradients = train(variables, image, labels, jax.random.key(0))
    chex.assert_tree_all_finite((loss, logits, out, stats, gradients))
    chex.assert_trees_all_equal_shapes(gradients, variables["params"])
    without = {path for path, gradient in slashed(gradients).items() if not gradient.any()}
    before_norm = re.compile(r"(conv\d?|query|key|key_norm|value|output|awel)/bias$")
    assert without or "batch_stats" not in variables
    assert all(before_norm.search(path) for path in without), without
    before = slashed(variables.get("batch_stats", {}))
    for path, after in slashed(stats).items():
        assert not np.array_equal(after, before[path]), path
    train(variables, 1 - image, labels, jax.random.key(1))  # the second call is not traced


@pytest.mark.parametrize("name", models.names())
def test_evaluation_leaves_the_statistics_and_is_repeatable(name):
    model, _, evaluate = compiled(name)
    image, _ = batch(model)
    variables = random_variables(model, image.shape)
    (logits, _), changed = evaluate(variables, image)
    chex.assert_trees_all_equal({**variables, **changed}, variables)
    np.testing.assert_array_equal(evaluate(variables, image)[0][0], logits)
    swapped = evaluate(variables, image[::-1])[0][0]  # images do not see one another
    np.testing.assert_allclose(swapped[::-1], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "random"),
    [("aep_net", True), ("unet", True), ("feedback_unet", True), ("sa_unet", True), ("aep", False)],
)
def test_dropout_follows_the_key(name, random):
    model, train, _ = compiled(name)
    image, labels = batch(model)
    variables = random_variables(model, image.shape)
    losses_ = [float(train(variables, image, labels, jax.random.key(k))[0][0]) for k in (0, 0, 1)]
    assert losses_[0] == losses_[1]
    assert (losses_[0] != losses_[2]) is random
