"""Convolutions and transposed convolutions, exact and in forms that are fast on the CPU.

Kernels are [k, k, in, out]. A transposed kernel is kept in the "stamp" convention: input pixel i
adds `x[i] * kernel[a]` to output pixel `2 i + a - padding`, which is PyTorch's and Keras's.
`_convolve` is the plain form; `_choose` is the one place that says which form is taken.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from feedseg.models.layers.shapes import check

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_BLOCK_PIXELS = 4096  # pixels whose patches are multiplied at once: they stay in the cache
_MIN_CHANNELS = 32  # below it the compiler's kernel gradient is faster where there is a stride
_NARROW = 16  # channels up to which two pixels at once are faster

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Operations traced inside take their simplest form, for programs that run elsewhere."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def are_plain() -> bool:
    """Whether `plain_forms` is active."""
    return _plain.get()


def _for_cpu() -> bool:
    return jax.default_backend() == "cpu" and not are_plain()


def channel_mean(x: Array) -> Array:
    """Mean of each channel, x [..., C] -> [C], over the pixels of a row first.

    Several cores share the rows; the factor between the two sums keeps the compiler from merging
    them into one, of which each channel would be one core's work.
    """
    if x.ndim > 2:
        x = x.sum(-2) * (1 / x.shape[-2])
    return x.mean(tuple(range(x.ndim - 1)))


class Forms(NamedTuple):
    """How a convolution and its gradients are computed.

    forward, by_input: so many neighboring pixels of a row at once (`_convolve_wide`), 1 is the
    compiler's plain form. blocks: the kernel gradient as products over blocks of rows.
    """

    forward: int = 1
    by_input: int = 1
    blocks: bool = False


def _convolve(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
    )


def _convolve_wide(x: Array, kernel: Array, padding: Padding, count: int) -> Array:
    """A convolution with stride 1, `count` pixels of a row at once; the width fits.

        z[n, i, j, (u, f)] = sum_{a, b} x[n, i + a, count j + b] wide[a, b, (u, f)]
        wide[a, b, (u, f)] = kernel[a, b - u, f], zero outside the kernel

    z [N, H, W / count, count F] is y [N, H, W, F] without moving a number. It takes
    (k + count - 1) / k times the operations, but its vectors are `count` times as long: few
    channels leave most of a vector register empty. An infinite or NaN pixel makes the pixels NaN
    that are computed together with those that see it.
    """
    if count == 1:
        return _convolve(x, kernel, 1, padding)
    shifted = [jnp.pad(kernel, ((0, 0), (u, count - 1 - u), (0, 0), (0, 0))) for u in range(count)]
    z = lax.conv_general_dilated(
        x, jnp.concatenate(shifted, -1), (1, count), padding, dimension_numbers=_DIMENSIONS
    )
    n, height, columns, _ = z.shape
    return z.reshape(n, height, columns * count, kernel.shape[-1])


def _kernel_gradient(x: Array, dy: Array, size: int, stride: int, padding: Padding) -> Array:
    """Gradient of a convolution by its kernel, as matrix products over blocks of rows.

        dK[a, b] = sum_{n, i, j} x[n, stride i + a, stride j + b]^T dy[n, i, j]

    x [N, H, W, C], dy [N, h, w, F]; returns [size, size, C, F].
    """
    batch, height, width, features = dy.shape
    channels = x.shape[-1]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    fits = [
        r for r in range(1, height + 1) if height % r == 0 and r * width * batch <= _BLOCK_PIXELS
    ]
    rows = max(fits, default=1)
    span = (rows - 1) * stride + size

    def add(block, total):
        strip = lax.dynamic_slice_in_dim(x, block * rows * stride, span, 1)
        shifts = [
            strip[:, a : a + rows * stride : stride, b : b + width * stride : stride][
                :, :rows, :width
            ]
            for a in range(size)
            for b in range(size)
        ]
        patches = jnp.concatenate(shifts, -1).reshape(-1, size * size * channels)
        part = lax.dynamic_slice_in_dim(dy, block * rows, rows, 1).reshape(-1, features)
        return total + jnp.dot(part.T, patches, preferred_element_type=total.dtype)

    start = jnp.zeros((features, size * size * channels), jnp.promote_types(dy.dtype, jnp.float32))
    total = lax.fori_loop(0, height // rows, add, start)
    return total.T.reshape(size, size, channels, features)


def _turned(kernel: Array) -> Array:
    """The kernel of the opposite direction, from outputs to inputs."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _opposite(padding: Padding, size: int) -> Padding:
    """Padding of the outputs with which a convolution of stride 1 leads back to the inputs."""
    rows, columns = ((size - 1 - before, size - 1 - after) for before, after in padding)
    return rows, columns


def _kernel_gradient_in_blocks(
    x: Array, dy: Array, size: int, stride: int, padding: Padding
) -> Array:
    """The patches are those of the side that has fewer channels."""
    if stride == 1 and dy.shape[-1] < x.shape[-1]:
        return _turned(_kernel_gradient(dy, x, size, 1, _opposite(padding, size)))
    return _kernel_gradient(x, dy, size, stride, padding)


def _input_gradient(
    dy: Array, kernel: Array, x: Array, stride: int, padding: Padding, count: int
) -> Array:
    size = kernel.shape[0]
    if (size, stride, padding) == (4, 2, ((1, 1), (1, 1))) and not (x.shape[1] | x.shape[2]) % 2:
        # the same map written as an up-convolution, 4 times faster than the dilated one
        return up_conv2d(dy, kernel.transpose(0, 1, 3, 2))
    if stride == 1:
        return _convolve_wide(dy, _turned(kernel), _opposite(padding, size), count)
    return jax.vjp(lambda x: _convolve(x, kernel, stride, padding), x)[1](dy)[0]


def _make(forms: Forms, stride: int, padding: Padding) -> Callable[[Array, Array], Array]:
    """The convolution in these forms."""

    @jax.custom_vjp
    def convolve(x, kernel):
        if forms.forward > 1:
            return _convolve_wide(x, kernel, padding, forms.forward)
        return _convolve(x, kernel, stride, padding)

    def forward(x, kernel):
        return convolve(x, kernel), (x, kernel)

    def backward(saved, dy):
        x, kernel = saved
        dx = _input_gradient(dy, kernel, x, stride, padding, forms.by_input)
        if forms.blocks:
            dk = _kernel_gradient_in_blocks(x, dy, kernel.shape[0], stride, padding)
        else:
            (dk,) = jax.vjp(lambda k: _convolve(x, k, stride, padding), kernel)[1](dy)
        return dx, dk.astype(kernel.dtype)

    convolve.defvjp(forward, backward)
    return convolve


def _choose(
    image: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: Padding
) -> Forms:
    """The fastest forms on a CPU, by measurement (benchmarks/NOTES.md)."""
    (_, width, inputs), (size, _, _, outputs) = image[1:], kernel
    if stride > 1 or size % 2 == 0:
        return Forms(blocks=min(inputs, outputs) >= _MIN_CHANNELS)
    narrow = max(inputs, outputs) <= _NARROW
    results = width + sum(padding[1]) - size + 1
    forward, by_input = (2 if narrow and side % 2 == 0 else 1 for side in (results, width))
    return Forms(forward, by_input, True)


def conv2d(x: Array, kernel: Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> Array:
    """`y[i, j] = sum_ab x[stride i + a, stride j + b] kernel[a, b]` on the zero-padded x.

    x [N, H, W, C], kernel [k, k, C, F]. On the CPU it and its gradients take the forms that are
    fastest there, equal to rounding; everywhere else the compiler's own are used.
    """
    check("conv2d", x=(x, "N H W C"), kernel=(kernel, "k k C F"))
    forms = Forms()
    if _for_cpu():
        forms = _choose(x.shape, kernel.shape, stride, padding)
    if forms == Forms():
        return _convolve(x, kernel, stride, padding)
    return _make(forms, stride, padding)(x, kernel)


@jax.custom_vjp
def _product(x: Array, matrix: Array) -> Array:
    """x [N, H, W, C] times matrix [C, F], the matrix's gradient in blocks."""
    return x @ matrix


def _product_gradients(saved, dy):
    x, matrix = saved
    dk = _kernel_gradient(x, dy, 1, 1, ((0, 0), (0, 0)))[0, 0]
    return dy @ matrix.T, dk.astype(matrix.dtype)


_product.defvjp(lambda x, matrix: (x @ matrix, (x, matrix)), _product_gradients)


def product(x: Array, matrix: Array) -> Array:
    """A 1x1 convolution: x [N, H, W, C] times matrix [C, F]."""
    check("product", x=(x, "N H W C"), matrix=(matrix, "C F"))
    return _product(x, matrix) if _for_cpu() else x @ matrix


@jax.custom_vjp
def add_bias(y: Array, bias: Array) -> Array:
    """y [N, H, W, F] + bias [F]."""
    return y + bias


def _bias_gradients(bias, dy):
    total = channel_mean(dy.astype(jnp.float32)) * (dy.size // dy.shape[-1])
    return dy, total.astype(bias.dtype)


add_bias.defvjp(lambda y, bias: (y + bias, bias), _bias_gradients)


def _interleave(phases: Array) -> Array:
    """[N, h, w, 2, 2, F] -> [N, 2h, 2w, F], out[2i + a, 2j + b] = phases[i, j, a, b]."""
    n, h, w, _, _, f = phases.shape
    return phases.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, f)


def up_conv2d(x: Array, kernel: Array) -> Array:
    """Transposed convolution with stride 2 that doubles the sides.

    kernel 2x2 (no overlap), 3x3 (padding 0, what hangs over at the end is cut off, which is
    Keras's "same") or 4x4 (padding 1). Written as a stride-1 convolution that gives the four phases
    of the output, which are then interleaved: exact, and the gradient is fast.
    Raises ValueError for another kernel size.
    """
    check("up_conv2d", x=(x, "N H W C"), kernel=(kernel, "k k C F"))
    n, h, w, c = x.shape
    f = kernel.shape[-1]
    if kernel.shape[0] not in (2, 3, 4):
        raise ValueError(f"a kernel of {kernel.shape[0]} px does not double the sides: 2, 3 or 4")
    if kernel.shape[0] == 2:
        phases = product(x, kernel.transpose(2, 0, 1, 3).reshape(c, 4 * f))
        return _interleave(phases.reshape(n, h, w, 2, 2, f))
    if kernel.shape[0] == 3:
        return _up_conv3(x, kernel)
    # flipped, index 2 * tap + phase: tap 0 is the pixel before, tap 1 the pixel itself
    taps = kernel[::-1, ::-1].reshape(2, 2, 2, 2, c, f).transpose(0, 2, 4, 1, 3, 5)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = _phase_convolution()(x, taps.reshape(2, 2, c, 4 * f)).reshape(n, h + 1, w + 1, 2, 2, f)
    corners = [[y[:, a : a + h, b : b + w, a, b] for b in (0, 1)] for a in (0, 1)]
    return _interleave(jnp.stack([jnp.stack(row, 3) for row in corners], 3))


def _up_conv3(x: Array, kernel: Array) -> Array:
    """All nine products of a pixel at once; row 2i of the output gets row 2 of stamp i - 1 too."""
    n, h, w, c = x.shape
    stamps = (x @ kernel.transpose(2, 0, 1, 3).reshape(c, -1)).reshape(n, h, w, 3, 3, -1)
    later = jnp.pad(stamps[:, :-1, :, 2:], ((0, 0), (1, 0), (0, 0), (0, 1), (0, 0), (0, 0)))
    rows = stamps[:, :, :, :2] + later
    later = jnp.pad(rows[:, :, :-1, :, 2:], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 1), (0, 0)))
    return _interleave(rows[:, :, :, :, :2] + later)


def _phase_convolution() -> Callable[[Array, Array], Array]:
    """2x2 convolution without padding; the compiler's kernel gradient is never good on the CPU."""
    padding = ((0, 0), (0, 0))
    if _for_cpu():
        return _make(Forms(blocks=True), 1, padding)
    return lambda x, kernel: _convolve(x, kernel, 1, padding)
