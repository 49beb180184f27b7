"""A model on an image of any size: which tiles or windows it gets, and what is said of them."""

import numpy as np
import pytest

from feedseg.inference import segment
from feedseg.io.source import ImageSource
from feedseg.runtime.errors import UserError
from tests.support.fake_model import Fake, bright


def source(image: np.ndarray) -> ImageSource:
    pages = image[None, ..., None]
    return ImageSource("image", pages.shape, pages.dtype, lambda page, a, b: pages[page, a:b])


def apply(trained: Fake, image: np.ndarray, **options) -> np.ndarray:
    return np.concatenate(list(segment.predict_rows(trained, source(image), **options)))


def of_its_window(window: np.ndarray) -> np.ndarray:
    """P(bright) = how bright the window is: depends on all of it."""
    mean = np.broadcast_to(window.mean((1, 2, 3))[:, None, None], window.shape[:3])
    return np.stack([1 - mean, mean], -1).astype(np.float32)


def test_only_windows_as_in_training_are_spoken_of():
    assert segment.tile_rule(Fake()) == ""
    assert segment.tile_rule(Fake(window=256)) == (
        "this network looks at 256 px at once, as in training: windows of 256 px, "
        "blended over 128 px"
    )


def test_a_network_of_its_window_is_blended():
    """From a dark half to a bright half in steps no larger than those of the ramp."""
    image = np.repeat(np.uint8([[0, 255]]), 48, axis=1).repeat(40, axis=0)
    found = apply(Fake(apply=of_its_window, window=16), image)
    assert found.shape == (40, 96, 2)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, :32, 1], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 64:, 1], 1, atol=1e-6)
    assert np.abs(np.diff(found[..., 1], axis=1)).max() <= np.pi / 8  # pi / V


def test_a_convolutional_network_is_not_blended():
    image = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    whole = bright((image / 255)[None, ..., None])[0]
    np.testing.assert_allclose(apply(Fake(), image, tile=16), whole, atol=1e-6)


def test_rotations_of_windows_are_blended_too():
    image = np.full((40, 50), 51, np.uint8)
    found = apply(Fake(apply=of_its_window, window=16), image, rotations=3)
    np.testing.assert_allclose(found[..., 1], 0.2, atol=1e-5)


def test_windows_have_one_size():
    with pytest.raises(UserError, match=r"--tile 32: .* 16 px as in training; leave it out"):
        apply(Fake(window=16), np.zeros((40, 40), np.uint8), tile=32)


def test_windows_are_not_halved_where_memory_does_not_suffice():
    def exhausted(window):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(UserError, match="image: out of memory for the smallest tiles"):
        apply(Fake(apply=exhausted, window=16), np.zeros((40, 40), np.uint8))
