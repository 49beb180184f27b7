"""The mean over rotated versions of an image."""

import numpy as np
import pytest

from feedseg import rotation

IMAGE = np.random.default_rng(0).random((9, 9, 2)).astype(np.float32)


def test_angles():
    assert rotation.angles(4) == [0, 90, 180, 270]
    assert rotation.angles(7)[1] == pytest.approx(360 / 7)


def test_quarter_turns_are_exact():
    np.testing.assert_allclose(rotation.turn(IMAGE, 90, (9, 9)), np.rot90(IMAGE), atol=1e-5)
    np.testing.assert_allclose(rotation.turn(IMAGE, 180, (9, 9)), IMAGE[::-1, ::-1], atol=1e-5)


def test_there_and_back_is_the_image_but_for_interpolation():
    y, x = np.mgrid[:40, :60] / 10
    smooth = np.stack([np.sin(x + y), np.cos(x)], -1).astype(np.float32)
    size = rotation.canvas(40, 60, 51)
    assert size == (73, 73)
    back = rotation.turn(rotation.turn(smooth, 51, size), -51, (40, 60))
    inner = np.s_[2:-2, 2:-2]  # the mirror image has a kink that is interpolated over
    np.testing.assert_allclose(back[inner], smooth[inner], atol=0.01)


def test_one_rotation_is_none():
    seen = []
    rotation.mean(lambda image: seen.append(image) or image, IMAGE, 1)
    assert len(seen) == 1 and seen[0] is IMAGE


def test_mean_of_four_is_the_mean_over_the_quarter_turns():
    """A network that sees its right neighbour sees all four."""
    found = rotation.mean(lambda image: np.roll(image, -1, 1), IMAGE, 4)
    around = [np.roll(IMAGE, step, axis) for axis in (0, 1) for step in (1, -1)]
    np.testing.assert_allclose(found[2:-2, 2:-2], np.mean(around, 0)[2:-2, 2:-2], atol=1e-5)


def test_mean_of_seven_leaves_a_pointwise_network_alone():
    y, x = np.mgrid[:32, :32] / 10
    smooth = np.sin(x + y)[..., None].astype(np.float32)
    found = rotation.mean(lambda image: 2 * image, smooth, 7)
    np.testing.assert_allclose(found[2:-2, 2:-2], 2 * smooth[2:-2, 2:-2], atol=0.02)
