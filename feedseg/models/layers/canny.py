"""Canny edges of 8-bit gray images, bit for bit those of OpenCV, compiled and for whole batches."""

import jax
import jax.numpy as jnp
from jax import lax

from feedseg.models.layers.shapes import check

Array = jax.Array

_TAN_22 = 13573  # tan(22.5 degrees) in units of 2^-15, rounded as OpenCV has it
_WORD = 32  # pixels of a row in one word of `_grow`


def _sobel(gray: Array) -> tuple[Array, Array]:
    """Derivatives of [N, H, W] by x and by y with the 3x3 Sobel masks, outer pixels repeated."""
    x = jnp.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    down = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return across[:, :, 2:] - across[:, :, :-2], down[:, 2:] - down[:, :-2]


def _ridges(dx: Array, dy: Array) -> tuple[Array, Array]:
    """`m = |dx| + |dy|` and where it is a maximum across the edge, zero outside the image.

    Four sectors of the gradient's direction. Along a row or a column m must exceed the neighbor
    before and may equal the one after; on a diagonal it must exceed both.
    """
    m = abs(dx) + abs(dy)
    height, width = m.shape[1:]
    padded = jnp.pad(m, ((0, 0), (1, 1), (1, 1)))

    def at(row: int, column: int) -> Array:
        return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    y = abs(dy) << 15
    flat = abs(dx) * _TAN_22
    steep = flat + (abs(dx) << 16)  # tan(67.5 degrees) = tan(22.5 degrees) + 2
    row = (m > at(0, -1)) & (m >= at(0, 1))
    column = (m > at(-1, 0)) & (m >= at(1, 0))
    falling = (m > at(-1, -1)) & (m > at(1, 1))
    rising = (m > at(-1, 1)) & (m > at(1, -1))
    diagonal = jnp.where((dx < 0) == (dy < 0), falling, rising)
    return m, jnp.where(y < flat, row, jnp.where(y > steep, column, diagonal))


def _pack(mask: Array) -> Array:
    """Booleans [N, H, W] as bits of words [N, H, ceil(W / 32)]; bit b is pixel 32 word + b."""
    n, h, w = mask.shape
    bits = jnp.pad(mask, ((0, 0), (0, 0), (0, -w % _WORD))).reshape(n, h, -1, _WORD)
    places = jnp.arange(_WORD, dtype=jnp.uint32)
    return jnp.sum(bits.astype(jnp.uint32) << places, -1, dtype=jnp.uint32)


def _unpack(words: Array, width: int) -> Array:
    bits = words[..., None] >> jnp.arange(_WORD, dtype=jnp.uint32) & 1
    return bits.reshape(*words.shape[:2], -1)[:, :, :width] == 1


def _grow(words: Array) -> Array:
    """Every set pixel with its eight neighbors."""
    before = jnp.pad(words, ((0, 0), (0, 0), (1, 0)))[:, :, :-1] >> (_WORD - 1)
    after = jnp.pad(words, ((0, 0), (0, 0), (0, 1)))[:, :, 1:] << (_WORD - 1)
    wide = words | words << 1 | words >> 1 | before | after
    rows = jnp.pad(wide, ((0, 0), (1, 1), (0, 0)))
    return rows[:, :-2] | wide | rows[:, 2:]


def _connected(strong: Array, candidates: Array) -> Array:
    """Candidates that a chain of 8-neighbors among them joins to a strong one."""
    # 32 pixels a word: a chain can be hundreds of pixels long, each a pass over all images
    within = _pack(candidates)

    def spread(state):
        _, now = state
        return now, _grow(now) & within

    _, edges = lax.while_loop(
        lambda state: jnp.any(state[0] != state[1]), spread, (jnp.zeros_like(within), _pack(strong))
    )
    return _unpack(edges, strong.shape[2])


def canny(gray: Array, low: int, high: int) -> Array:
    """Edges of 8-bit images, booleans [N, H, W], of gray values [N, H, W] (integers 0 to 255).

    Sobel derivatives (aperture 3), gradient `m = |dx| + |dy|`, thinned to its maxima across the
    edge; edges are the maxima with `m > high` and those with `m > low` joined to them. No
    smoothing comes first.
    Raises ValueError unless 0 <= low <= high and the gray values are integers.
    Source: Canny (1986) in the form of OpenCV's `Canny(image, low, high)`, with which it agrees
    bit for bit.
    """
    check("canny", grey=(gray, "N H W"))
    if not 0 <= low <= high:
        raise ValueError(f"canny thresholds {low} and {high}: choose 0 <= low <= high")
    if not jnp.issubdtype(gray.dtype, jnp.integer):
        raise ValueError(f"canny takes integers from 0 to 255, not {gray.dtype}")
    magnitude, ridge = _ridges(*_sobel(gray.astype(jnp.int32)))
    candidates = ridge & (magnitude > low)
    return _connected(candidates & (magnitude > high), candidates)


def grey8(image: Array) -> Array:
    """Grey values 0 to 255, int32 [N, H, W], of an image in [0, 1], [N, H, W, C].

    Each channel is rounded to 8 bits; the mean over the channels is rounded down, as a cast to 8
    bits does. Values outside [0, 1] are clipped. No gradient.
    """
    check("grey8", image=(image, "N H W C"))
    scaled = lax.stop_gradient(image).astype(jnp.float32) * 255
    channels = jnp.round(jnp.clip(scaled, 0, 255)).astype(jnp.int32)
    return channels.sum(-1) // image.shape[-1]
