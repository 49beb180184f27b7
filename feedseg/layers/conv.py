"""Convolutions and transposed convolutions, exact and with fast gradients on the CPU.

Kernels are [k, k, in, out]. A transposed kernel is kept in the "stamp" convention: input pixel i
adds `x[i] * kernel[a]` to output pixel `2 i + a - padding`, which is PyTorch's and Keras's.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import variance_scaling, zeros

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_BLOCK_PIXELS = 2048  # pixels whose patches are multiplied at once: they stay in the cache
# Below these numbers of channels the compiler's own kernel gradient is the faster one; on large
# images it loses as soon as the outputs are many (245 against 95 ms at 8 x 256 x 256, 12 -> 32).
_MIN_CHANNELS = 32
_MIN_INPUTS, _LARGE_PIXELS = 4, 256 * 256


def _convolve(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
    )


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


def _make_blocked(stride: int, padding: Padding) -> Callable[[Array, Array], Array]:
    """The convolution with its kernel gradient taken in blocks."""

    @jax.custom_vjp
    def convolve(x, kernel):
        return _convolve(x, kernel, stride, padding)

    def forward(x, kernel):
        return convolve(x, kernel), (x, kernel)

    def backward(saved, dy):
        x, kernel = saved
        halves = (kernel.shape[0], stride, padding) == (4, 2, ((1, 1), (1, 1)))
        if halves and x.shape[1] % 2 == x.shape[2] % 2 == 0:
            # the same map written as an up-convolution, 4 times faster than the dilated one
            dx = up_conv2d(dy, kernel.transpose(0, 1, 3, 2))
        else:
            (dx,) = jax.vjp(lambda x: _convolve(x, kernel, stride, padding), x)[1](dy)
        dk = _kernel_gradient(x, dy, kernel.shape[0], stride, padding)
        return dx, dk.astype(kernel.dtype)

    convolve.defvjp(forward, backward)
    return convolve


def conv2d(x: Array, kernel: Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> Array:
    """`y[i, j] = sum_ab x[stride i + a, stride j + b] kernel[a, b]` on the zero-padded x.

    On the CPU wide kernels get their gradient from blocks of matrix products, up to 3 times faster
    than the compiler's; everywhere else the compiler's own gradient is used.
    """
    inputs, outputs = kernel.shape[2:]
    large = x.shape[1] * x.shape[2] >= _LARGE_PIXELS
    least = _MIN_INPUTS if large else _MIN_CHANNELS
    if inputs >= least and outputs >= _MIN_CHANNELS and jax.default_backend() == "cpu":
        return _make_blocked(stride, padding)(x, kernel)
    return _convolve(x, kernel, stride, padding)


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
    n, h, w, c = x.shape
    f = kernel.shape[-1]
    if kernel.shape[0] not in (2, 3, 4):
        raise ValueError(f"a kernel of {kernel.shape[0]} px does not double the sides: 2, 3 or 4")
    if kernel.shape[0] == 2:
        phases = x @ kernel.transpose(2, 0, 1, 3).reshape(c, 4 * f)
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
    if jax.default_backend() == "cpu":
        return _make_blocked(1, padding)
    return lambda x, kernel: _convolve(x, kernel, 1, padding)


def _larger(a: Array, b: Array) -> Array:
    """The larger one, NaN if one is NaN; of equal ones the first gets the gradient."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def max_pool2(x: Array) -> Array:
    """2x2 maximum with stride 2, sides even.

    Made of choices, which is also fast on the CPU: the gradient of a maximum over an axis asks
    which values equal it, and is 0 / 0 where a compiler has computed and rounded them twice.
    """
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w, c)
    x = _larger(x[:, :, 0], x[:, :, 1]).reshape(n, h // 2, w // 2, 2, c)
    return _larger(x[:, :, :, 0], x[:, :, :, 1])


def check_sides(image: Array, multiple: int) -> None:
    """Raises ValueError unless height and width are multiples of `multiple`."""
    height, width = image.shape[1:3]
    if height % multiple or width % multiple:
        near = " x ".join(
            str(max(multiple, round(side / multiple) * multiple)) for side in (height, width)
        )
        raise ValueError(
            f"image sides {height} x {width} must be multiples of {multiple}; nearest: {near}"
        )


def kernel_init(style: str, transposed: bool = False) -> Callable:
    """Initial kernels of Keras code (he_normal, glorot_uniform when transposed) or of PyTorch.

    he: N(0, 2 / fan_in), not truncated, as He et al. (2015) have it.
    """
    if style == "he":
        # each output pixel of a transposed kernel with stride 2 sees a quarter of its weights
        return variance_scaling(8.0 if transposed else 2.0, "fan_in", "normal")
    if style == "keras":
        if transposed:
            return variance_scaling(1.0, "fan_avg", "uniform")
        return variance_scaling(2.0, "fan_in", "truncated_normal")
    if style == "torch":
        # PyTorch counts out_channels k^2 as the fan-in of a transposed kernel
        return variance_scaling(1 / 3, "fan_out" if transposed else "fan_in", "uniform")
    raise ValueError(f"initializer={style!r}: choose keras, torch or he")


def bias_init(style: str, fan_in: int) -> Callable:
    """Zeros (Keras, He) or U(-1/sqrt(fan_in), 1/sqrt(fan_in)) (PyTorch)."""
    if style != "torch":
        return zeros
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


class Conv(nn.Module):
    """Convolution with bias; "same" padding for odd kernels, (kernel - stride) / 2 for even ones.

    valid: no padding, the map loses (kernel - 1) / 2 pixels on each side.

    A bias that a batch normalisation follows has no effect on the output and a gradient of exactly
    zero; `before_norm` says so, which keeps rounding noise out of it.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = True
    before_norm: bool = False
    initializer: str = "torch"
    valid: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.param(
            "kernel", kernel_init(self.initializer), (size, size, channels, self.features)
        )
        side = 0 if self.valid else (size - self.stride + 1) // 2
        if size == 1:
            y = x @ kernel[0, 0].astype(x.dtype)
        else:
            y = conv2d(x, kernel.astype(x.dtype), self.stride, ((side, side), (side, side)))
        if not self.use_bias:
            return y
        bias = self.param(
            "bias", bias_init(self.initializer, size * size * channels), (self.features,)
        )
        return y + (lax.stop_gradient(bias) if self.before_norm else bias).astype(x.dtype)


class UpConv(nn.Module):
    """Transposed convolution with stride 2 and bias, kernel 2, 3 or 4 px, doubling the sides."""

    features: int
    kernel_size: int = 2
    before_norm: bool = False
    initializer: str = "torch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.param(
            "kernel",
            kernel_init(self.initializer, transposed=True),
            (size, size, channels, self.features),
        )
        bias = self.param(
            "bias", bias_init(self.initializer, size * size * self.features), (self.features,)
        )
        y = up_conv2d(x, kernel.astype(x.dtype))
        return y + (lax.stop_gradient(bias) if self.before_norm else bias).astype(x.dtype)
