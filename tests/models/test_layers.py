"""Layers against numbers computed by hand, jitted and not."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.layers.awel import Awel
from feedseg.models.layers.blocks import ConvNormAct, Dropout, keep_mask
from feedseg.models.layers.conv import Conv, UpConv
from tests.support.layer_checks import both, normal, pull_back

# Modules ----------------------------------------------------------------------------------------


def parameters(module: nn.Module, x: jax.Array) -> dict:
    return module.init(jax.random.key(0), x)["params"]


def shapes(module: nn.Module, *image_shape: int, **kwargs) -> tuple[tuple, dict]:
    """Shapes of the output and of the parameters."""
    image = jnp.ones(image_shape)
    y, variables = jax.eval_shape(
        lambda key: module.init_with_output(key, image, **kwargs), jax.random.key(0)
    )
    return y.shape, jax.tree.map(lambda p: p.shape, variables["params"])


@pytest.mark.parametrize(("size", "stride", "side"), [(1, 1, 8), (3, 1, 8), (4, 2, 4), (5, 1, 8)])
def test_conv_shapes(size, stride, side):
    layer = Conv(7, size, stride)
    expected = {"kernel": (size, size, 3, 7), "bias": (7,)}
    assert shapes(layer, 2, 8, 8, 3) == ((2, side, side, 7), expected)
    assert set(shapes(layer.clone(use_bias=False), 2, 8, 8, 3)[1]) == {"kernel"}


@pytest.mark.parametrize("size", [2, 4])
def test_up_conv_shapes(size):
    expected = {"kernel": (size, size, 3, 7), "bias": (7,)}
    assert shapes(UpConv(7, size), 2, 3, 5, 3) == ((2, 6, 10, 7), expected)


def assert_uniform(values: jax.Array, bound: float) -> None:
    assert float(abs(values).max()) <= bound
    assert abs(float(values.std()) / (bound / math.sqrt(3)) - 1) < 0.05
    assert abs(float(values.mean())) < 0.05 * bound


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(Conv(512, 3), 9 * 16), (UpConv(512, 2), 4 * 512)], ids=["conv", "up"]
)
def test_torch_initial_ranges(layer, fan_in):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)); the fan-in of a transposed kernel is its output's."""
    first = parameters(layer, jnp.ones((1, 2, 2, 16)))
    assert_uniform(first["kernel"], 1 / math.sqrt(fan_in))
    assert float(abs(first["bias"]).max()) <= 1 / math.sqrt(fan_in)
    assert float(first["bias"].std()) > 0.5 / math.sqrt(fan_in)


def test_keras_initial_ranges():
    """he_normal: truncated at two of its own deviations; glorot_uniform for a transposed one."""
    x = jnp.ones((1, 2, 2, 16))
    first = parameters(Conv(256, 3, initializer="keras"), x)
    deviation = math.sqrt(2 / (9 * 16))
    assert abs(float(first["kernel"].std()) / deviation - 1) < 0.02
    assert float(abs(first["kernel"]).max()) <= 2 * deviation / 0.8796
    np.testing.assert_array_equal(first["bias"], 0)
    first = parameters(UpConv(256, 2, initializer="keras"), x)
    assert_uniform(first["kernel"], math.sqrt(6 / (4 * (16 + 256))))
    np.testing.assert_array_equal(first["bias"], 0)


@pytest.mark.parametrize("layer", [Conv(2, initializer="hee"), UpConv(2, initializer="hee")])
def test_unknown_initializer(layer):
    with pytest.raises(ValueError, match="choose keras, torch or he"):
        parameters(layer, jnp.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("layer", [Conv(3), UpConv(3, 4)], ids=["conv", "up"])
def test_a_bias_before_a_norm_is_added_but_has_no_gradient(layer):
    x = normal(0, 2, 4, 4, 2)
    before = layer.clone(before_norm=True)
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(layer.apply(variables, x), before.apply(variables, x))

    def gradient(module):
        return jax.grad(lambda v: jnp.square(module.apply(v, x)).sum())(variables)["params"]

    with_bias, without = gradient(layer), gradient(before)
    assert (with_bias["bias"] != 0).all() and (without["bias"] == 0).all()
    np.testing.assert_array_equal(with_bias["kernel"], without["kernel"])


# Dropout ----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3, 3 / 256])
def test_keep_mask_rate(run, rate):
    """Within five deviations of the binomial distribution, alone and for neighbors together."""
    shape = (8, 32, 32, 5)  # 160 values a row: not always whole words
    mask = np.asarray(run(lambda key: keep_mask(key, shape, rate))(jax.random.key(3)))
    assert mask.shape == shape and mask.dtype == bool
    pairs = [mask[:-1] & mask[1:], mask[:, :-1] & mask[:, 1:], mask[..., :-1] & mask[..., 1:]]
    keep = 1 - rate
    for events, p in [(mask, keep), *((pair, keep**2) for pair in pairs)]:
        deviation = math.sqrt(p * (1 - p) / events.size)
        assert abs(float(events.mean()) - p) < 5 * deviation


@pytest.mark.parametrize(("rate", "bits"), [(0.5, 1), (0.25, 2), (5 / 16, 4), (77 / 256, 8)])
def test_keep_mask_is_exact(monkeypatch, rate, bits):
    """Over all values that the random bits can take, each once per byte."""
    words = np.arange(256, dtype=np.uint8).view(np.uint32)
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: words.reshape(shape))
    mask = keep_mask(jax.random.key(0), (2048 // bits // 4, 4), rate)
    assert int(mask.sum()) == (1 - rate) * mask.size


@pytest.mark.parametrize(
    ("rate", "shape"), [(0.5, (2, 3, 5, 7)), (0.25, (1, 1, 1, 201)), (0.3, (2, 3, 5, 7))]
)
def test_keep_mask_is_a_function_of_the_key(rate, shape):
    first, again, other = (np.asarray(keep_mask(jax.random.key(k), shape, rate)) for k in (0, 0, 1))
    assert first.shape == shape
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@both
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_zeroes_or_scales(run, dtype):
    x = (1 + normal(0, 4, 8, 8, 3) ** 2).astype(dtype)
    rngs = {"dropout": jax.random.key(1)}

    def forward(x):
        return Dropout(0.5).apply({}, x, train=True, rngs=rngs)

    y, dx = run(lambda x: pull_back(forward, (x,), jnp.ones_like(x)))(x)
    assert y.dtype == dtype
    x, kept = np.asarray(x), np.asarray(y) != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_array_equal(y, np.where(kept, 2 * x, 0))
    np.testing.assert_array_equal(dx, np.where(kept, 2, 0))


def test_dropout_off():
    x = normal(0, 2, 4, 4, 3)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, train=True), x)


# Convolution, normalization, ReLU ---------------------------------------------------------------


def doubling() -> tuple[ConvNormAct, dict]:
    """A layer whose convolution gives 2 x + 10, with scale 3 and offset 1 after the norm."""
    params = {
        "conv": {
            "kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(2.0),
            "bias": jnp.asarray([10.0]),
        },
        "norm": {"scale": jnp.asarray([3.0]), "bias": jnp.asarray([1.0])},
    }
    stats = {"norm": {"mean": jnp.asarray([0.5]), "var": jnp.asarray([4.0])}}
    return ConvNormAct(1), {"params": params, "batch_stats": stats}


PIXELS = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]  # 12, 14, 16, 18 after it


@both
def test_conv_norm_act_in_training(run):
    layer, variables = doubling()
    y, changed = run(lambda v, x: layer.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, PIXELS
    )
    deviations = np.array([-3, -1, 1, 3]) / math.sqrt(5 + 1e-5)
    np.testing.assert_allclose(y.ravel(), np.maximum(3 * deviations + 1, 0), rtol=1e-5)
    stats = changed["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.9 * 0.5 + 0.1 * 15, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * 4 + 0.1 * 5, rtol=1e-5)


@both
def test_conv_norm_act_in_evaluation(run):
    layer, variables = doubling()
    y = run(lambda v, x: layer.apply(v, x, train=False))(variables, PIXELS)
    expected = 3 * (np.array([12, 14, 16, 18]) - 0.5) / math.sqrt(4 + 1e-5) + 1
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)


def test_conv_norm_act_uses_its_arguments():
    y, params = shapes(ConvNormAct(3, 4, up=True), 1, 4, 4, 2, train=False)
    assert y == (1, 8, 8, 3) and params["conv"]["kernel"] == (4, 4, 2, 3)
    y, params = shapes(ConvNormAct(3, 4, 2, use_bias=False), 1, 4, 4, 2, train=False)
    assert y == (1, 2, 2, 3) and set(params["conv"]) == {"kernel"}


def test_calls_update_the_running_statistics_one_after_another():
    _, variables = doubling()

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, first, second):
            shared = ConvNormAct(1, momentum=0.75, name="shared")
            return shared(first, train=True), shared(second, train=True)

    nested = {kind: {"shared": tree} for kind, tree in variables.items()}
    _, changed = Twice().apply(nested, PIXELS, 10 * PIXELS, mutable=["batch_stats"])
    stats = changed["batch_stats"]["shared"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.75 * (0.75 * 0.5 + 0.25 * 15) + 0.25 * 60)
    np.testing.assert_allclose(stats["var"], 0.75 * (0.75 * 4 + 0.25 * 5) + 0.25 * 500, rtol=1e-5)


# AWEL -------------------------------------------------------------------------------------------

MAPS = jnp.log(jnp.asarray([[[[[1.0, 3.0]]]], [[[[4.0, 1.0]]]]]))  # [2, 1, 1, 1, 2]
LEARNED = {"params": {"weights": jnp.asarray([2.0, -1.0]), "bias": jnp.asarray([0.5])}}


@both
@pytest.mark.parametrize(
    ("mode", "use", "expected"),
    [
        ("learned", "logits", [math.log(1 / 4) + 0.5, math.log(9) + 0.5]),
        ("learned", "probabilities", [2 * 0.25 - 0.8 + 0.5, 2 * 0.75 - 0.2 + 0.5]),
        ("fixed", "logits", [math.log(4), math.log(3)]),
        ("fixed", "probabilities", [0.25 + 0.8, 0.75 + 0.2]),
    ],
)
def test_awel_by_hand(run, mode, use, expected):
    layer = Awel(mode, use, "torch")
    variables = LEARNED if mode == "learned" else {}
    y = run(layer.apply)(variables, MAPS)
    np.testing.assert_allclose(y, np.array(expected).reshape(1, 1, 1, 2), rtol=1e-5, atol=1e-6)


def test_awel_bias_has_no_gradient():
    gradient = jax.grad(lambda v: Awel("learned", "logits", "torch").apply(v, MAPS)[..., 0].sum())(
        LEARNED
    )["params"]
    np.testing.assert_array_equal(gradient["bias"], 0)
    np.testing.assert_allclose(gradient["weights"], [0, math.log(4)], atol=1e-6)


def test_awel_start():
    maps = jnp.zeros((4, 1, 2, 2, 3))
    mean = parameters(Awel("learned", "logits", "mean"), maps)
    np.testing.assert_array_equal(mean["weights"], np.full(4, 0.25))
    np.testing.assert_array_equal(mean["bias"], [0])
    layer = Awel("learned", "logits", "torch")
    draws = [layer.init(jax.random.key(seed), maps)["params"] for seed in range(50)]
    for name in ("weights", "bias"):
        values = np.concatenate([d[name] for d in draws])
        assert abs(values).max() <= 0.5 and values.min() < -0.35 and values.max() > 0.35
    assert not Awel("fixed", "logits", "torch").init(jax.random.key(0), maps)


@pytest.mark.parametrize(
    ("use", "start", "message"), [("maps", "torch", "awel_input"), ("logits", "zero", "awel_init")]
)
def test_awel_unknown_arguments(use, start, message):
    with pytest.raises(ValueError, match=message):
        Awel("learned", use, start).init(jax.random.key(0), MAPS)
