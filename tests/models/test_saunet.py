"""SAUNet: its layers and their order against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg import models
from feedseg.models import saunet
from feedseg.models.layers.canny import canny
from feedseg.models.layers.densenet import DenseNet
from feedseg.models.layers.dual_attention import ChannelAttention, DualAttention
from feedseg.models.layers.shape_stream import GatedConv, ResidualBlock, ShapeStream
from tests.support import plain_layers as plain
from tests.support.layer_checks import normal
from tests.support.networks import NARROW, build, shapes_of

# Layers -----------------------------------------------------------------------------------------


def plain_residual(x, p, s, train):
    y = plain.conv_norm_act(x, p["conv1"], s["conv1"], train)
    return plain.relu(x + plain.norm(plain.conv(y, p["conv2"]), p["norm2"], s["norm2"], train))


def plain_gate(x, texture, p, s, train):
    y = plain.norm(np.concatenate([x, texture], -1), p["norm1"], s["norm1"], train)
    y = plain.conv(plain.relu(plain.conv(y, p["conv1"])), p["conv2"])
    weight = plain.sigmoid(plain.norm(y, p["norm2"], s["norm2"], train))
    return plain.conv(x * (1 + weight), p["out"])


def plain_dual_attention(deep, skip, p, s, train):
    up = plain.conv_norm_act(deep, p["up"], s["up"], train, up=True)
    f = plain.conv_norm_act(np.concatenate([skip, up], -1), p["fuse"], s["fuse"], train)
    inner = plain.conv_norm_act(f, p["spatial_down"], s["spatial_down"], train)
    spatial = plain.sigmoid(plain.conv(inner, p["spatial"]))
    squeezed = plain.conv(f.mean((1, 2), keepdims=True), p["channel"]["fc1"])
    channel = plain.sigmoid(plain.conv(plain.relu(squeezed), p["channel"]["fc2"]))
    return f * channel * (1 + spatial)


def plain_densenet(x, p, s, train, blocks):
    def norm(x, name):
        return plain.norm(x, p[name], s[name], train)

    x, maps = norm(plain.conv(x, p["conv0"], 2), "norm0"), []
    for block, layers in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            name = f"block{block}_layer{layer}"
            y = plain.conv(plain.relu(norm(x, f"{name}_norm1")), p[f"{name}_conv1"])
            y = plain.conv(plain.relu(norm(y, f"{name}_norm2")), p[f"{name}_conv2"])
            x = np.concatenate([x, y], -1)
        name = f"transition{block}"
        if block == 4:
            return (*maps, norm(x, "norm5"))
        x = plain.conv(plain.relu(norm(x, f"{name}_norm")), p[f"{name}_conv"])
        x = plain.pool(x, np.mean)
        maps.append(x)


def plain_stream(maps, p, s, train, height, width):
    def up(x):
        return plain.bilinear(x, height, width)

    x = up(plain.conv(maps[0], p["reduce0"]))
    for i, texture in enumerate(maps[1:], 1):
        x = plain_residual(x, p[f"residual{i}"], s[f"residual{i}"], train)
        x = plain.conv(x, p[f"reduce{i}"])
        t = up(plain.conv(texture, p[f"texture{i}_conv"]))
        x = plain_gate(x, t, p[f"gate{i}"], s[f"gate{i}"], train)
    return plain.conv(x, p["edge"])


def plain_saunet(model, image, canny_image, p, s, train):
    maps = plain_densenet(image, p["encoder"], s["encoder"], train, model.blocks)
    edge = plain_stream(maps, p["shape_stream"], s["shape_stream"], train, *image.shape[1:3])
    both_maps = np.concatenate([plain.sigmoid(edge), canny_image], -1)
    mixed = plain.sigmoid(plain.conv(both_maps, p["edge_mix"]))
    feature = plain.conv_norm_act(mixed, p["edge_expand"], s["edge_expand"], train)

    def double(x):
        return plain.bilinear(x, 2 * x.shape[1], 2 * x.shape[2])

    c2, c3, c4, c5 = maps
    x = plain.conv_norm_act(plain.pool(c5, np.max), p["centre"], s["centre"], train)
    for level, skip in ((5, c5), (4, double(c4)), (3, double(c3)), (2, double(c2))):
        x = plain_dual_attention(x, skip, p[f"dec{level}"], s[f"dec{level}"], train)
    x = plain.conv_norm_act(x, p["dec1_conv"], s["dec1_conv"], train)
    x = plain.conv_norm_act(x, p["dec1_up"], s["dec1_up"], train, up=True)
    x = np.concatenate([x, feature], -1)
    x = plain.conv_norm_act(x, p["dec0_conv"], s["dec0_conv"], train)
    return plain.conv(x, p["classifier"]), edge


KIND = ("torch", 0.9, 1e-5)
MAPS = (normal(0, 2, 4, 6, 5), normal(1, 2, 2, 3, 6), normal(2, 2, 1, 2, 3), normal(3, 2, 1, 2, 4))
LAYERS = {
    "residual": (ResidualBlock(*KIND), (normal(0, 2, 4, 5, 3),), plain_residual),
    "gate": (GatedConv(*KIND), (normal(0, 2, 4, 5, 3), normal(1, 2, 4, 5, 1)), plain_gate),
    "dual_attention": (
        DualAttention(32, *KIND),
        (normal(0, 2, 2, 3, 5), normal(1, 2, 4, 6, 4)),
        plain_dual_attention,
    ),
    "shape_stream": (
        ShapeStream((4, 3, 2, 2), *KIND),
        (MAPS, 8, 12),
        lambda maps, height, width, p, s, train: plain_stream(maps, p, s, train, height, width),
    ),
    "densenet": (
        DenseNet(2, (2, 1, 1, 1), *KIND),
        (normal(0, 2, 32, 32, 3),),
        lambda x, p, s, train: plain_densenet(x, p, s, train, (2, 1, 1, 1)),
    ),
}


def drawn(layer, *arguments, seed: int = 0) -> dict:
    """Variables with every kind of number: scales and variances around 1, the rest around 0."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *arguments, train=False))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        spread = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1]))) if kind == "kernel" else 0.3
        start = 1.0 if kind in ("scale", "var") else 0.0
        return jnp.asarray(start + spread * rng.uniform(-1, 1, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize(
    ("name", "run", "train"),
    [
        *((name, jax.jit, train) for name in LAYERS for train in (False, True)),
        *((name, lambda f: f, True) for name in ("residual", "gate", "dual_attention")),
    ],
)
def test_layers(name, run, train):
    layer, arguments, function = LAYERS[name]
    kernels = drawn(layer, *arguments)
    kept = [a for a in arguments if not isinstance(a, int)]
    sizes = [a for a in arguments if isinstance(a, int)]
    got, _ = run(lambda v, *a: layer.apply(v, *a, *sizes, train=train, mutable=["batch_stats"]))(
        kernels, *kept
    )
    p, s = plain.doubles(kernels["params"]), plain.doubles(kernels["batch_stats"])
    exact = [jax.tree.map(lambda x: np.asarray(x, np.float64), a) for a in kept]
    expected = function(*exact, *sizes, p, s, train)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.abs(b).max() > 0.03
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("train", "channels"), [(False, 1), (True, 3)])
def test_the_network_is_the_plain_one(train, channels):
    """A gray image is one with three equal channels."""
    model = models.build(3, NARROW["saunet"])
    x = jnp.asarray(np.random.default_rng(0).random((2, 64, 32, channels)), jnp.float32)
    kernels = drawn(model, x)
    with jax.enable_x64(True):  # float32 sums through 60 layers differ between machines
        doubles, image = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (kernels, x))
        (logits, out), _ = jax.jit(
            lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"])
        )(doubles, image)
    color = np.broadcast_to(np.asarray(x, np.float64), (*x.shape[:3], 3))
    gray = np.round(color * 255).sum(-1).astype(int) // 3
    found = np.stack([plain.canny(image, 10, 100) for image in gray])[..., None] * 255.0
    np.testing.assert_array_equal(out["canny"], found)
    p, s = plain.doubles(kernels["params"]), plain.doubles(kernels["batch_stats"])
    expected, edge = plain_saunet(model, color, found, p, s, train)
    np.testing.assert_allclose(out["edge"], edge, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "channels", "message"),
    [
        ({}, 2, "1 or 3 channels, not 2"),
        (dict(blocks=(1, 1, 1)), 3, "blocks=.*choose 4 numbers"),
        (dict(shape_stream=(4, 2)), 3, "shape_stream=.*choose 4 numbers"),
        (dict(decoder=(4, 2)), 3, "decoder=.*choose 6 numbers"),
        (dict(canny_source="rgb"), 3, "canny_source='rgb': choose"),
    ],
)
def test_wrong_arguments(changes, channels, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(build("saunet", **changes), (1, 32, 32, channels))


def test_halo_without_the_channel_attention(monkeypatch):
    """Input columns with a gradient, for one output column of every place in a stride."""
    monkeypatch.setattr(ChannelAttention, "__call__", lambda self, x: x)
    model = models.build(1, NARROW["saunet"])
    middle = 2 * model.halo
    x = jnp.ones((1, 32, 2 * middle + 32, 1))
    shapes = shapes_of(model, x.shape)[1]

    def fill(path, leaf):  # everything positive: no ReLU is dead and nothing cancels
        kernel = path[-1].key == "kernel"
        value = 1 / np.prod(leaf.shape[:-1]) if kernel else float(path[-1].key in ("scale", "var"))
        return np.full(leaf.shape, value, np.float32)

    kernels = jax.tree_util.tree_map_with_path(fill, shapes)
    columns = jax.jit(
        lambda place: jax.grad(
            lambda x: jax.lax.dynamic_slice_in_dim(
                model.apply(kernels, x, train=False)[0], place, 1, 2
            ).sum()
        )(x).any((0, 1, 3))
    )
    seen = [np.flatnonzero(columns(place)) - place for place in range(middle, middle + 32)]
    reach = max(max(-columns.min(), columns.max()) for columns in seen)
    assert model.halo - model.stride < reach <= model.halo


def test_sources_of_the_canny_image():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (2, 16, 16, 1)) / 255, jnp.float32)
    found = saunet.edges(image, "grey255")
    expected = canny(jnp.round(image[..., 0] * 255).astype(int), 10, 100)
    np.testing.assert_array_equal(found[..., 0], np.where(expected, 255.0, 0.0))
    assert 0.1 < expected.mean() < 0.9
    assert not saunet.edges(image, "as_released").any()
    assert saunet.edges(255 * image, "as_released").any()  # what the released code meant
    with pytest.raises(ValueError, match="choose grey255 or as_released"):
        saunet.edges(image, "grey")
