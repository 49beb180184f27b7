"""Convolutions and pooling against NumPy loops and the plain operations of JAX and Flax."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from feedseg.models.layers import convolve
from feedseg.models.layers.conv import max_pool2
from feedseg.models.layers.convolve import Forms, conv2d, up_conv2d
from tests.support.layer_checks import both, normal, pull_back

NHWC = ("NHWC", "HWIO", "NHWC")


def assert_same_map(run, mine, plain, x, kernel, **tolerance) -> None:
    """Same values and the same gradients by image and kernel."""
    dy = normal(2, *jax.eval_shape(plain, x, kernel).shape)
    got = run(lambda *a: pull_back(mine, a, dy))(x, kernel)
    expected = jax.jit(lambda *a: pull_back(plain, a, dy))(x, kernel)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or dict(atol=2e-5, rtol=1e-4)))


# Convolution ------------------------------------------------------------------------------------


def convolution(stride: int, padding):
    return lambda x, k: lax.conv_general_dilated(
        x, k, (stride, stride), padding, dimension_numbers=NHWC
    )


@pytest.mark.parametrize(
    ("run", "size", "stride", "side", "height", "width"),
    [
        (jax.jit, 3, 1, 1, 6, 10),
        (jax.jit, 4, 2, 1, 8, 6),
        (lambda f: f, 4, 2, 1, 8, 6),
        (jax.jit, 3, 1, 1, 5, 7),
        (jax.jit, 4, 2, 1, 9, 7),
        (jax.jit, 2, 1, 0, 4, 5),
    ],
)
@pytest.mark.parametrize(
    "channels", [(32, 33), (3, 5), (7, 2)], ids=["wide", "narrow", "fewer outputs"]
)
def test_conv2d_is_the_convolution(run, size, stride, side, height, width, channels):
    x = normal(0, 2, height, width, channels[0])
    kernel = normal(1, size, size, *channels) / size / math.sqrt(channels[0])
    padding = ((side, side), (side, side))
    assert_same_map(
        run, lambda x, k: conv2d(x, k, stride, padding), convolution(stride, padding), x, kernel
    )


@pytest.mark.parametrize("block", [1, 24, 10**6])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 2)])
def test_kernel_gradient_in_any_number_of_blocks(monkeypatch, block, size, stride):
    """One row at a time, a few rows, all at once."""
    monkeypatch.setattr(convolve, "_BLOCK_PIXELS", block)
    x, kernel = normal(0, 2, 12, 6, 32), normal(1, size, size, 32, 32) / 16
    padding = ((1, 1), (1, 1))
    assert_same_map(
        jax.jit,
        lambda x, k: conv2d(x, k, stride, padding),
        convolution(stride, padding),
        x,
        kernel,
    )


@pytest.mark.parametrize(
    "forms", [Forms(1, 1, False), Forms(2, 4, True), Forms(4, 2, False), Forms(2, 1, True)]
)
@pytest.mark.parametrize(
    ("size", "padding"),
    [(3, ((1, 1), (1, 1))), (3, ((0, 0), (0, 0))), (5, ((2, 2), (2, 2))), (3, ((0, 2), (2, 0)))],
)
def test_several_pixels_at_once_are_the_convolution(forms, size, padding):
    width = 8 + size - 1 - sum(padding[1])  # a row of the result has 8 pixels
    x, kernel = normal(0, 2, 6, width, 5), normal(1, size, size, 5, 3) / 9
    forms = forms._replace(by_input=math.gcd(forms.by_input, width))
    assert_same_map(jax.jit, convolve._make(forms, 1, padding), convolution(1, padding), x, kernel)


def test_kernel_gradient_in_bfloat16_is_summed_in_float32():
    x, kernel = normal(0, 2, 16, 16, 32), normal(1, 3, 3, 32, 32) / 16

    def gradient(dtype):
        return jax.grad(lambda k: conv2d(x.astype(dtype), k).astype(jnp.float32).sum())(
            kernel.astype(dtype)
        )

    low, full = gradient(jnp.bfloat16), gradient(jnp.float32)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), full, atol=0.01 * float(abs(full).max()))


def stamps(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Transposed convolution, pixel by pixel, from its definition."""
    n, height, width, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[-1]
    pad = (size - 2) // 2
    total = np.zeros((n, 2 * height + 2 * pad, 2 * width + 2 * pad, features))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("nc,abcf->nabf", x[:, i, j], kernel)
            total[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += stamp
    return total[:, pad : pad + 2 * height, pad : pad + 2 * width]


@both
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("shape", [(2, 3, 6), (1, 1, 1)])
def test_up_conv2d_stamps_the_kernel(run, size, shape):
    x, kernel = normal(0, *shape, 3), normal(1, size, size, 3, 4)
    expected = stamps(np.asarray(x, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(run(up_conv2d)(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("channels", [(32, 16), (3, 5)])
def test_up_conv2d_is_the_transposed_convolution_of_jax(size, channels):
    def plain(x, kernel):
        return lax.conv_transpose(
            x, kernel[::-1, ::-1], (2, 2), "SAME", dimension_numbers=NHWC
        )  # JAX does not flip the kernel

    x, kernel = normal(0, 2, 3, 5, channels[0]), normal(1, size, size, *channels) / 8
    assert_same_map(jax.jit, up_conv2d, plain, x, kernel)


def test_up_conv2d_by_hand():
    x = jnp.asarray([[[[1.0], [10.0]]]])
    small = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])[..., None, None]
    expected = [[1, 2, 10, 20], [3, 4, 30, 40]]
    np.testing.assert_array_equal(up_conv2d(x, small)[0, ..., 0], expected)
    # row 1 of the kernel is output row 0; stamps [1 2 3 4] at -1 and [10 20 30 40] at 1
    large = jnp.zeros((4, 4)).at[1].set(jnp.arange(1.0, 5.0))[..., None, None]
    expected = [[2, 3 + 10, 4 + 20, 30], [0, 0, 0, 0]]
    np.testing.assert_array_equal(up_conv2d(x, large)[0, ..., 0], expected)


# Pooling and sides ------------------------------------------------------------------------------


@both
def test_max_pool2_is_flax_max_pool(run):
    x = jnp.asarray(np.random.default_rng(0).permutation(2 * 6 * 8 * 3), jnp.float32)
    x, dy = x.reshape(2, 6, 8, 3), normal(1, 2, 3, 4, 3)
    got = run(lambda x: pull_back(max_pool2, (x,), dy))(x)
    expected = pull_back(lambda x: nn.max_pool(x, (2, 2), (2, 2)), (x,), dy)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_max_pool2_of_equal_values_passes_the_gradient_to_the_first():
    gradient = jax.grad(lambda x: max_pool2(x).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient[0, ..., 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("position", range(4))
def test_max_pool2_keeps_nan(position):
    x = np.arange(4.0, dtype=np.float32)
    x[position] = np.nan
    assert np.isnan(max_pool2(x.reshape(1, 2, 2, 1))).all()


def test_max_pool2_refuses_odd_sides():
    with pytest.raises(TypeError):
        max_pool2(jnp.ones((1, 3, 4, 1)))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices take the plain form")
@pytest.mark.parametrize(
    ("side", "channels", "forms"),
    [
        (256, (1, 8), Forms(2, 2, True)),
        (64, (16, 16), Forms(2, 2, True)),
        (63, (8, 8), Forms(1, 1, True)),
        (64, (32, 8), Forms(1, 1, True)),
        (64, (64, 64), Forms(1, 1, True)),
    ],
)
def test_narrow_convolutions_take_several_pixels_at_once(side, channels, forms, monkeypatch):
    taken = []
    monkeypatch.setattr(convolve, "_make", lambda f, *_: lambda x, k: taken.append(f) or x)
    jax.eval_shape(
        lambda x, k: conv2d(x, k, 1, ((1, 1), (1, 1))),
        jax.ShapeDtypeStruct((1, side, side, channels[0]), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, *channels), jnp.float32),
    )
    assert taken == [forms]


def test_other_devices_take_the_plain_form(monkeypatch):
    monkeypatch.setattr(convolve.jax, "default_backend", lambda: "gpu")
    program = jax.make_jaxpr(conv2d)(jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 4, 4)))
    assert [equation.primitive.name for equation in program.eqns] == ["conv_general_dilated"]


@pytest.mark.parametrize("shape", [(2, 6, 10, 5), (3, 1, 1, 4)])
def test_a_1x1_convolution_and_a_bias_are_what_they_say(shape):
    x, matrix, bias = normal(0, *shape), normal(1, shape[-1], 3), normal(2, 3)
    dy = normal(3, *shape[:-1], 3)
    got = jax.jit(
        lambda *a: pull_back(lambda x, m, b: convolve.add_bias(convolve.product(x, m), b), a, dy)
    )(x, matrix, bias)
    want = jax.jit(lambda *a: pull_back(lambda x, m, b: x @ m + b, a, dy))(x, matrix, bias)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4)
