"""The mean over rotated versions of an image."""

from types import SimpleNamespace

import numpy as np
import pytest

from feedseg.evaluation import test_split
from feedseg.inference import rotation
from tests.support.fake_model import COLORS, NAMES, Fake, bright

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
    """A network that sees its right neighbor sees all four."""
    found = rotation.mean(lambda image: np.roll(image, -1, 1), IMAGE, 4)
    around = [np.roll(IMAGE, step, axis) for axis in (0, 1) for step in (1, -1)]
    np.testing.assert_allclose(found[2:-2, 2:-2], np.mean(around, 0)[2:-2, 2:-2], atol=1e-5)


def test_mean_of_seven_leaves_a_pointwise_network_alone():
    y, x = np.mgrid[:32, :32] / 10
    smooth = np.sin(x + y)[..., None].astype(np.float32)
    found = rotation.mean(lambda image: 2 * image, smooth, 7)
    np.testing.assert_allclose(found[2:-2, 2:-2], 2 * smooth[2:-2, 2:-2], atol=0.02)


@pytest.mark.parametrize("window", [0, 16])
def test_rotated_images_are_seen_at_once_or_by_windows_as_in_training(window):
    seen = set()

    def apply(image):
        seen.add(image.shape[1:3])
        return bright(image)

    images = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 1), dtype=np.uint8)
    dataset = SimpleNamespace(
        images=images, labels=images[..., 0] // 128, low=[0.0], high=[255.0], num_classes=2,
        class_names=NAMES, class_colors=COLORS,
    )  # fmt: skip
    model = Fake(apply=apply, window=window)
    (matrix,) = test_split.rotation_matrices(model, dataset, np.array([0]), 7)
    assert matrix.sum() == 1600 and np.trace(matrix) > 800
    assert (seen == {(16, 16)}) if window else (len(seen) == 2 and min(min(seen)) >= 40)
