"""AEP: translation, variants, the statistics of network 2, and the released weights.

The wiring is tested with a network of two layers in place of AEP's own, which is tested elsewhere.
"""

import itertools
from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from feedseg import models
from feedseg.models import aep, aep_net
from feedseg.models.layers.blocks import ConvNormAct
from feedseg.models.layers.conv import Conv
from feedseg.runtime.errors import UserError
from feedseg.training import losses
from tests.support.networks import FAST_COMPILE, random_variables


class Small(nn.Module):
    """In place of `aep_net.Model`: the same arguments and outputs, two layers."""

    num_classes: int
    penultimate: int
    dropout: float
    bn_momentum: float
    bn_epsilon: float

    stride: ClassVar[int] = aep_net.Model.stride
    reach: ClassVar[int] = aep_net.Model.reach

    @nn.compact
    def __call__(self, image, *, train):
        x = ConvNormAct(self.penultimate, momentum=self.bn_momentum, name="conv10")(
            image, train=train
        )
        return Conv(self.num_classes, 1, name="conv_f")(x), {"penultimate": x}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(aep_net, "Model", Small)


def build(num_classes: int = 2, **changes):
    return models.build(num_classes, common.model("aep", **changes))


def random_image(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def start(model, image) -> dict:
    return model.init(jax.random.key(0), image, train=False)


# Translation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [lambda f, **_: f, jax.jit], ids=["plain", "jitted"])
@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        # sigmoid(0.2), sigmoid(0.2 + 0.3), sigmoid(0.6), sigmoid(0.6 + 0.3)
        ("code", [[0.5498340, 0.6456563], [0.6224593, 0.7109495]]),
        # 0.2 + sigmoid(0) and so on, sigmoid(0.3) = 0.5744425
        ("eq1", [[0.7, 1.1], [0.7744425, 1.1744425]]),
    ],
)
def test_translate_by_hand(run, reading, expected):
    """Two channels 0.2 and 0.6 of one pixel; filters -1, which is cut off, and 0.3."""
    image = jnp.asarray([0.2, 0.6]).reshape(1, 1, 1, 2)
    filters = jnp.asarray([-1.0, 0.3]).reshape(1, 1, 1, 2)
    translated = run(aep.translate, static_argnames="reading")(image, filters, reading=reading)
    assert translated.shape == (2, 1, 1, 1, 2)
    np.testing.assert_allclose(translated.reshape(2, 2), expected, rtol=1e-6)


# Variants ---------------------------------------------------------------------------------------


def legal(source: str, multiplier: int, ensemble: str) -> bool:
    """The other sources have one map per class."""
    return source == "penultimate" or multiplier == 1 or ensemble == "single"


def test_every_combination_of_structure(small):
    """Shapes of outputs and parameters; combinations without enough maps are refused."""
    image, classes = jnp.zeros((2, 8, 16, 3)), 3
    choices = (
        ("n_filters", 16),
        (1, 2, 3),
        ("penultimate", "output", "softmax", "argmax"),
        ("learned", "fixed", "stacked", "single"),
    )
    for penultimate, multiplier, source, ensemble in itertools.product(*choices):
        model = build(
            classes,
            penultimate=penultimate,
            multiplier=multiplier,
            source=source,
            ensemble=ensemble,
        )

        def outputs(model=model):
            return model.init_with_output(jax.random.key(0), image, train=False)

        if not legal(source, multiplier, ensemble):
            with pytest.raises(ValueError, match="multiplier must be 1"):
                jax.eval_shape(outputs)
            continue
        (logits, out), variables = jax.eval_shape(outputs)
        params = variables["params"]
        filters = 1 if ensemble == "single" else multiplier * classes
        chex.assert_shape((logits, out["first"]), (2, 8, 16, classes))
        chex.assert_shape(out["filters"], (2, 8, 16, filters))
        chex.assert_shape(out["translated"], (filters, 2, 8, 16, 3))
        width = 16 if penultimate == 16 else filters
        inputs = 3 * filters if ensemble == "stacked" else 3
        assert params["network1"]["conv10"]["conv"]["kernel"].shape == (3, 3, 3, width)
        assert params["network2"]["conv10"]["conv"]["kernel"].shape == (3, 3, inputs, 16)
        assert ("awel" in params) is (ensemble == "learned")
        assert ("members" in out) is (ensemble in ("learned", "fixed"))
        if "members" in out:
            chex.assert_shape(out["members"], (filters + 1, 2, 8, 16, classes))


VARIANTS = [
    dict(penultimate=16, multiplier=2),
    dict(multiplier=3, net2_bn="joint", awel_init="mean"),
    dict(source="output", translate="eq1"),
    dict(source="softmax", awel_input="probabilities"),
    dict(source="argmax", ensemble="fixed", awel_input="probabilities"),
    dict(ensemble="stacked"),
    dict(ensemble="single"),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_gradients_of_variants(small, changes):
    """Finite; network 2 always has some, network 1 too."""
    model = build(**changes)
    image, labels = random_image(2, 8, 8, 1), jnp.zeros((2, 8, 8), jnp.uint8).at[:, 3:].set(1)
    variables = random_variables(model, image.shape)

    def loss_of(params):
        (logits, out), _ = model.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        outputs = losses.named_outputs(logits, out)
        other = "members" if "members" in outputs else "first"
        terms = {name: {"cross_entropy": 1.0} for name in ("final", other)}
        return losses.total_loss(outputs, labels, terms, jnp.ones(2))[0]

    gradients = jax.jit(jax.grad(loss_of), compiler_options=FAST_COMPILE)(variables["params"])
    chex.assert_tree_all_finite(gradients)
    for network in ("network1", "network2"):
        assert gradients[network]["conv10"]["conv"]["kernel"].any()


def outputs_of(image, **changes):
    """(variables, logits, out) of a variant in evaluation mode."""
    model = build(3, **changes)
    variables = start(model, image)
    return variables, *model.apply(variables, image, train=False)


def test_sources_of_the_filters(small):
    image = random_image(1, 8, 8, 1)
    _, _, out = outputs_of(image, source="output")
    np.testing.assert_array_equal(out["filters"], out["first"])
    _, _, out = outputs_of(image, source="softmax")
    np.testing.assert_allclose(out["filters"], jax.nn.softmax(out["first"]))
    _, _, out = outputs_of(image, source="argmax")
    np.testing.assert_array_equal(out["filters"].argmax(-1), out["first"].argmax(-1))
    np.testing.assert_array_equal(out["filters"].sum(-1), 1)
    variables, _, out = outputs_of(image, penultimate=16)
    network1 = {kind: tree["network1"] for kind, tree in variables.items()}
    _, extra = Small(3, 16, 0.5, 0.9, 1e-5).apply(network1, image, train=False)
    np.testing.assert_array_equal(out["filters"], extra["penultimate"][..., :3])


def test_ensembles(small):
    image = random_image(1, 8, 8, 2)
    variables, logits, out = outputs_of(image)
    weights, bias = variables["params"]["awel"]["weights"], variables["params"]["awel"]["bias"]
    np.testing.assert_array_equal(out["members"][0], out["first"])
    expected = sum(w * m for w, m in zip(weights, out["members"], strict=True)) + bias
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    _, logits, out = outputs_of(image, ensemble="fixed")
    np.testing.assert_allclose(logits, out["members"].sum(0), atol=1e-6)
    _, logits, out = outputs_of(image, ensemble="fixed", awel_input="probabilities")
    np.testing.assert_allclose(logits, jax.nn.softmax(out["members"]).sum(0), atol=1e-6)
    for ensemble in ("single", "stacked"):
        variables, logits, out = outputs_of(image, ensemble=ensemble)
        network2 = {kind: tree["network2"] for kind, tree in variables.items()}
        stacked = jnp.concatenate(list(out["translated"]), -1)
        expected, _ = Small(3, 16, 0.5, 0.9, 1e-5).apply(network2, stacked, train=False)
        np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(penultimate=8), "choose n_filters or 16"),
        (dict(penultimate=16, multiplier=6), "18 are needed"),
        (dict(source="input"), "choose penultimate, output, softmax, argmax"),
        (dict(translate="eq2"), "choose code or eq1"),
        (dict(net2_bn="shared"), "choose per_call or joint"),
        (dict(ensemble="mean"), "choose learned, fixed, stacked, single"),
        (dict(awel_input="maps"), "choose logits or probabilities"),
        (dict(awel_init="zero"), "choose torch or mean"),
    ],
)
def test_unknown_values_are_refused(small, changes, message):
    with pytest.raises((ValueError, UserError), match=message):
        jax.eval_shape(lambda: start(build(3, **changes), jnp.zeros((1, 8, 8, 1))))


def test_network_2_is_called_once_per_filter(small):
    """Per call: own statistics and an update after each, as when called by hand; joint: not."""
    image = random_image(2, 8, 8, 1)
    model = build()
    variables = start(model, image)
    (_, out), changed = model.apply(variables, image, train=True, mutable=["batch_stats"])
    net2, params = Small(2, 16, 0.5, 0.9, 1e-5), variables["params"]["network2"]
    stats, maps = variables["batch_stats"]["network2"], []
    for translated in out["translated"]:
        (logits, _), new = net2.apply(
            {"params": params, "batch_stats": stats},
            translated,
            train=True,
            mutable=["batch_stats"],
        )
        stats = new["batch_stats"]
        maps.append(logits)
    np.testing.assert_allclose(out["members"][1:], jnp.stack(maps), atol=1e-5)
    chex.assert_trees_all_close(changed["batch_stats"]["network2"], stats, atol=1e-6)

    (_, joint), other = build(net2_bn="joint").apply(
        variables, image, train=True, mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(joint["translated"], out["translated"])
    assert float(abs(joint["members"][1:] - out["members"][1:]).max()) > 1e-3
    for key in ("mean", "var"):
        one = stats["conv10"]["norm"][key]
        assert float(abs(other["batch_stats"]["network2"]["conv10"]["norm"][key] - one).max()) > 0
