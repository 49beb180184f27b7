"""SA-UNet: DropBlock, spatial attention, the 3x3 up-convolution and their order in plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from feedseg.models import sa_unet
from feedseg.models.layers import dropblock
from feedseg.models.layers.conv import UpConv
from feedseg.models.layers.convolve import up_conv2d
from feedseg.models.layers.dropblock import DropBlock
from tests.support import plain_layers as plain
from tests.support.layer_checks import both, normal, pull_back
from tests.support.networks import build, random_variables

# Up-convolution ---------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("shape", [(2, 3, 6), (1, 1, 1)])
def test_up_conv3_stamps_the_kernel(run, shape):
    x, kernel = normal(0, *shape, 3), normal(1, 3, 3, 3, 4)
    expected = plain.up_conv(np.asarray(x, float), {"kernel": np.asarray(kernel, float)})
    np.testing.assert_allclose(run(up_conv2d)(x, kernel), expected, atol=1e-5)


def test_up_conv3_by_hand():
    """Stamps [1 2 3] at 0 and [10 20 30] at 2; what hangs over at the end is cut off."""
    x = jnp.asarray([[[[1.0], [10.0]]]])
    kernel = jnp.zeros((3, 3)).at[0].set(jnp.arange(1.0, 4.0))[..., None, None]
    expected = [[1, 2, 3 + 10, 20], [0, 0, 0, 0]]
    np.testing.assert_array_equal(up_conv2d(x, kernel)[0, ..., 0], expected)


@pytest.mark.parametrize("channels", [(32, 16), (3, 5)])
def test_up_conv3_is_the_transposed_convolution_of_jax(channels):
    """Values and both gradients."""
    x, kernel = normal(0, 2, 3, 5, channels[0]), normal(1, 3, 3, *channels) / 8
    plain_one = functools.partial(
        lax.conv_transpose,
        strides=(2, 2),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    dy = normal(2, 2, 6, 10, channels[1])
    got = jax.jit(lambda *a: pull_back(up_conv2d, a, dy))(x, kernel)
    expected = jax.jit(lambda *a: pull_back(lambda x, k: plain_one(x, k[::-1, ::-1]), a, dy))(
        x, kernel
    )
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4)


def test_up_conv3_module_and_other_sizes():
    x = jax.ShapeDtypeStruct((2, 3, 5, 3), jnp.float32)
    y, variables = jax.eval_shape(UpConv(7, 3).init_with_output, jax.random.key(0), x)
    assert y.shape == (2, 6, 10, 7)
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
    assert shapes == {"kernel": (3, 3, 3, 7), "bias": (7,)}
    with pytest.raises(ValueError, match="5 px does not double the sides"):
        up_conv2d(jnp.ones((1, 2, 2, 1)), jnp.ones((5, 5, 1, 1)))


# DropBlock --------------------------------------------------------------------------------------


def forward(x, keep=0.9, block=7, seed=0):
    rngs = {"dropout": jax.random.key(seed)}
    return DropBlock(keep, block).apply({}, x, train=True, rngs=rngs)


@both
@pytest.mark.parametrize("block", [1, 3, 5, 7])
def test_squares_of_seeds(run, block):
    """A seed at i, j of the room for squares is the square from i, j to i + b - 1, j + b - 1."""
    height, width = 9, 12
    rng = np.random.default_rng(block)
    seeds = rng.random((2, height - block + 1, width - block + 1, 3)) < 0.05
    expected = np.zeros((2, height, width, 3), bool)
    for n, i, j, c in zip(*np.nonzero(seeds), strict=True):
        expected[n, i : i + block, j : j + block, c] = True
    assert expected.any() and not expected.all()
    got = run(lambda s: dropblock.dropped(s, block))(seeds)
    np.testing.assert_array_equal(got, expected)


def test_seed_probability_by_hand():
    assert dropblock.seed_probability(0.9, 7, 16, 16) == pytest.approx(0.1 / 49 * 256 / 100)
    assert dropblock.seed_probability(0.9, 7, 8, 16) == pytest.approx(0.1 / 49 * 128 / 20)
    assert dropblock.seed_probability(0.82, 1, 8, 8) == pytest.approx(0.18)
    assert dropblock.seed_probability(1e-9, 7, 7, 7) == pytest.approx(1)


@both
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropblock_drops_squares_and_rescales(run, dtype):
    x = (1 + normal(0, 8, 32, 32, 4) ** 2).astype(dtype)
    y, dx = run(lambda x: pull_back(forward, (x,), jnp.ones_like(x)))(x)
    assert y.dtype == dtype
    x, y, dx = (np.asarray(a, np.float64) for a in (x, y, dx))
    kept = y != 0
    factor = kept.size / kept.sum()
    tolerance = 1e-6 if dtype == jnp.float32 else 2**-7
    np.testing.assert_allclose(y, np.where(kept, factor * x, 0), rtol=tolerance)
    np.testing.assert_allclose(dx, np.where(kept, factor, 0), rtol=tolerance)
    windows = np.lib.stride_tricks.sliding_window_view(~kept, (7, 7), (1, 2))
    whole = windows.all((-1, -2))  # every dropped value lies in a square that is dropped
    np.testing.assert_array_equal(dropblock.dropped(jnp.asarray(whole), 7), ~kept)


def test_share_of_squares():
    """Within five deviations; each channel and each image for itself."""
    x = jnp.ones((16, 24, 24, 64))
    dropped = np.asarray(jax.jit(forward)(x)) == 0
    # a corner is dropped by the seed in that corner alone
    corners = dropped[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    p = dropblock.seed_probability(0.9, 7, 24, 24)
    assert abs(corners.mean() - p) < 5 * np.sqrt(p * (1 - p) / corners.size)
    assert (dropped[0] != dropped[1]).any() and (dropped[..., 0] != dropped[..., 1]).any()


def test_dropblock_is_off():
    x = normal(0, 2, 8, 8, 3)
    np.testing.assert_array_equal(DropBlock(0.5, 7).apply({}, x, train=False), x)
    np.testing.assert_array_equal(DropBlock(1.0, 7).apply({}, x, train=True), x)
    for shape in ((2, 6, 9, 3), (2, 9, 6, 3), (1, 1, 1, 1)):  # no room for a square
        small = normal(1, *shape)
        np.testing.assert_array_equal(forward(small, keep=0.1), small)


def test_everything_dropped_is_zero_and_not_nan():
    y, dx = pull_back(
        functools.partial(forward, keep=1e-9),
        (normal(0, 2, 7, 7, 3),),
        jnp.ones((2, 7, 7, 3)),
    )
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(dx, 0)


@pytest.mark.parametrize(
    ("keep", "block", "message"),
    [(0.0, 7, "keep=0.0: choose"), (1.5, 7, "keep=1.5: choose"), (0.9, 4, "block=4: choose")],
)
def test_dropblock_refuses_wrong_arguments(keep, block, message):
    with pytest.raises(ValueError, match=message):
        DropBlock(keep, block).apply({}, jnp.ones((1, 8, 8, 1)), train=False)


@pytest.mark.parametrize(
    ("side", "keep", "matters"), [(8, 0.9, True), (6, 0.9, False), (8, 1.0, False)]
)
def test_a_bias_matters_where_something_is_dropped(side, keep, matters):
    """The normalization behind removes a bias only if it is the same everywhere."""
    unit = sa_unet.Unit(3, keep, 7, "keras", 0.99, 1e-3)
    x, wanted = normal(0, 4, side, side, 2), normal(1, 4, side, side, 3)
    variables = unit.init(jax.random.key(0), x, train=False)

    def loss(params, key):
        y, _ = unit.apply(
            {**variables, "params": params},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return (y * wanted).sum()

    slope = jax.jit(jax.grad(loss))
    gradients = [slope(variables["params"], jax.random.key(k)) for k in range(3)]
    found = np.stack([gradient["conv"]["bias"] for gradient in gradients])
    assert (abs(found).max() > 1e-2) if matters else not found.any()


# Attention and network --------------------------------------------------------------------------


@both
def test_channel_max(run):
    """The maximum; of equal ones the first gets all of the gradient."""
    x = jnp.asarray([[0.0, 0.0, -1.0], [1.0, 3.0, 3.0], [-2.0, -3.0, -1.0]])
    y, dx = run(lambda x: pull_back(sa_unet.channel_max, (x,), jnp.ones((3, 1))))(x)
    np.testing.assert_array_equal(y[:, 0], [0, 3, -1])
    np.testing.assert_array_equal(dx, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])


def plain_attention(x, kernel):
    pooled = np.stack([x.mean(-1), x.max(-1)], -1)
    return plain.sigmoid(plain.conv(pooled, {"kernel": kernel}))


@both
def test_spatial_attention(run):
    x, kernel = normal(0, 2, 5, 9, 6), normal(1, 7, 7, 2, 1) / 5
    layer = sa_unet.SpatialAttention("keras")
    y, weight = run(layer.apply)({"params": {"conv": {"kernel": kernel}}}, x)
    expected = plain_attention(np.asarray(x, float), np.asarray(kernel, float))
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    np.testing.assert_allclose(y, expected * np.asarray(x, float), atol=1e-5)


def plain_network(x, p, s, attention):
    """Two levels above the bottom, in evaluation."""

    def unit(x, name):
        y = plain.conv(x, p[name]["conv"])
        return plain.relu(plain.norm(y, p[name]["norm"], s[name]["norm"], False, 1e-3))

    skips = []
    for level in (1, 2):
        x = unit(unit(x, f"enc{level}_conv1"), f"enc{level}_conv2")
        skips.append(x)
        x = plain.pool(x, np.max)
    x = unit(x, "bottom_conv1")
    if attention:
        x = x * plain_attention(x, p["attention"]["conv"]["kernel"])
    x = unit(x, "bottom_conv2")
    for level in (2, 1):
        x = np.concatenate([plain.up_conv(x, p[f"dec{level}_up"]), skips[level - 1]], -1)
        x = unit(unit(x, f"dec{level}_conv1"), f"dec{level}_conv2")
    return plain.conv(x, p["classifier"])


@pytest.mark.parametrize("attention", [True, False])
def test_the_network_is_the_plain_one(attention):
    model = build("sa_unet", 3, filters=(3, 4, 5), attention=attention)
    x = normal(0, 2, 8, 12, 1)
    variables = random_variables(model, x.shape)
    logits, out = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    p, s = plain.doubles(variables["params"]), plain.doubles(variables["batch_stats"])
    expected = plain_network(np.asarray(x, float), p, s, attention)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert ({"attention"} if attention else set()) == set(out)
    if attention:
        shown = np.asarray(out["attention"])
        assert shown.shape == (1, 2, 8, 12) and np.ptp(shown) > 0
        np.testing.assert_array_equal(shown, shown[:, :, ::4, ::4].repeat(4, 2).repeat(4, 3))
