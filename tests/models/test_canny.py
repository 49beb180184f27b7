"""Canny edges against a plain implementation and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.layers.canny import canny, grey8
from tests.support import plain_layers as plain
from tests.support.layer_checks import both


def images(kind: str, height: int, width: int) -> np.ndarray:
    """Three images of noise, of few gray levels or of soft hills."""
    rng = np.random.default_rng(height + width)
    noise = rng.integers(0, 256, (3, height, width))
    if kind == "levels":
        return noise // 64 * 64
    if kind == "hills":
        return np.cumsum(np.cumsum(rng.normal(size=noise.shape), 1), 2).astype(int) * 2 & 255
    return noise


@pytest.mark.parametrize(("low", "high"), [(10, 100), (300, 900), (0, 0)])
@pytest.mark.parametrize("kind", ["noise", "levels", "hills"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (12, 31), (10, 33), (9, 64)])
def test_canny_is_the_plain_one(height, width, kind, low, high):
    gray = images(kind, height, width)
    expected = [plain.canny(image, low, high) for image in gray]
    got = jax.jit(canny, static_argnums=(1, 2))(jnp.asarray(gray), low, high)
    np.testing.assert_array_equal(got, expected)


@both
def test_canny_by_hand(run):
    """Steps of 200 above and 20 below, the second joined to the first, and one of 20 alone.

    |dx| + |dy| is 4 times the step on both sides of it; the pixel before it is the edge.
    """
    joined = np.zeros((8, 12), int)
    joined[:4, 3:], joined[4:, 3:] = 200, 20
    alone = np.where(np.arange(12) < 8, 0, 20).repeat(8).reshape(12, 8).T
    strong, weak = np.asarray(run(lambda gray: canny(gray, 10, 100))(np.stack([joined, alone])))
    assert strong[:3, 2].all() and strong[5:, 2].all()
    assert not strong[:3, :2].any() and not strong[:3, 3:].any() and not weak.any()
    found = canny(alone[None], 10, 79)[0]  # below 80 it is strong itself
    np.testing.assert_array_equal(found, np.arange(12) == np.full((8, 1), 7))


def test_canny_follows_a_long_chain():
    """A weak edge 150 px long, over five words of 32 px, is one edge if one end is strong."""
    steps = np.full(150, 20)
    weak = np.zeros((6, 150), int)
    weak[3:] = steps
    steps[140:] += np.arange(10)  # 4 x 29 = 116
    joined = np.zeros((6, 150), int)
    joined[3:] = steps
    got = np.asarray(canny(np.stack([weak, joined]), 10, 100))
    assert not got[0].any() and got[1].any(0).all()
    np.testing.assert_array_equal(got[1], plain.canny(joined, 10, 100))


def test_images_of_a_batch_have_their_own_edges():
    find = jax.jit(lambda gray: canny(gray, 10, 100))
    gray = np.concatenate([images("noise", 9, 40), images("hills", 9, 40)])
    alone = [find(image[None])[0] for image in gray]
    np.testing.assert_array_equal(find(gray), alone)


def test_canny_refuses_wrong_arguments():
    with pytest.raises(ValueError, match="low <= high"):
        canny(jnp.zeros((1, 4, 4), int), 100, 10)
    with pytest.raises(ValueError, match="integers"):
        canny(jnp.zeros((1, 4, 4)), 10, 100)


def test_grey8_gives_back_eight_bits():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    image = values.astype(np.float32) / 255
    np.testing.assert_array_equal(grey8(image), values[..., 0])
    np.testing.assert_array_equal(grey8(image.repeat(3, -1)), values[..., 0])
    mixed = jnp.asarray([[[[1, 2, 5]]]]) / 255  # mean 2.67, rounded down
    assert int(grey8(mixed)[0, 0, 0]) == 2
    np.testing.assert_array_equal(grey8(jnp.asarray([[[[-1.0], [2.0]]]]))[0, 0], [0, 255])
