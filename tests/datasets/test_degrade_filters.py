"""Pseudo low quality and classical filters against numbers worked out by hand."""

import numpy as np
import pytest

from feedseg.datasets.common import degrade, filters
from feedseg.runtime.errors import UserError


def flat(value, size=64, channels=1):
    return np.full((size, size, channels), value, np.uint8)


def spot(value, size=11):
    image = np.zeros((size, size, 1), np.uint8)
    image[size // 2, size // 2] = value
    return image


def test_noise_has_sigma_100_and_is_clipped():
    result = degrade.apply(flat(128, 256), "noise", (0, 0)).astype(float)
    # clipped normal: P(x <= 0) = Phi(-1.28) = 0.100, P(x >= 255) = Phi(-1.27) = 0.102
    assert np.mean(result == 0) == pytest.approx(0.101, abs=0.006)
    assert np.mean(result == 255) == pytest.approx(0.103, abs=0.006)
    inside = (result > 28) & (result < 228)
    assert np.mean(inside) == pytest.approx(0.681, abs=0.006)  # within one sigma
    assert result.mean() == pytest.approx(127.7, abs=1)


def test_noise_depends_on_the_seed_alone():
    image = flat(128)
    first = degrade.apply(image, "noise", (0, 3))
    np.testing.assert_array_equal(first, degrade.apply(image, "noise", (0, 3)))
    assert np.any(first != degrade.apply(image, "noise", (0, 4)))
    assert np.any(first != degrade.apply(image, "noise", (1, 3)))
    assert np.all(image == 128)


def test_contrast_subtracts_100():
    image = np.array([[[0], [99], [100], [101], [255]]], np.uint8)
    result = degrade.apply(image, "contrast", (0, 0))
    np.testing.assert_array_equal(result[0, :, 0], [0, 0, 0, 1, 155])


def test_blur_weights_of_sigma_1_1():
    # exp(-r^2 / 2.42): 1, 0.6615, 0.1915; sum over 5 = 2.7060; center 0.3695, ...
    result = degrade.apply(spot(255), "blur", (0, 0))[5, :, 0]
    line = 255 * 0.36954 * np.array([0, 0, 0, 0.07077, 0.24446, 0.36954, 0.24446, 0.07077, 0, 0, 0])
    np.testing.assert_array_equal(result, np.rint(line))


def test_blur_mirrors_without_the_edge_pixel():
    image = np.zeros((7, 7, 1), np.uint8)
    image[:, 1] = 200
    # the column of index 1 is seen twice from column 0: 2 * 0.24446 * 200
    assert degrade.apply(image, "blur", (0, 0))[3, 0, 0] == round(2 * 0.24446 * 200)


def test_none_keeps_any_image():
    image = np.zeros((4, 4, 1), np.uint16)
    assert degrade.apply(image, "none", (0, 0)) is image
    assert filters.apply(image, "none") is image


@pytest.mark.parametrize("kind", degrade.KINDS[1:])
def test_degrade_refuses_other_types(kind):
    with pytest.raises(UserError, match=r"data\.degrade=.*8-bit.*uint16"):
        degrade.apply(np.zeros((4, 4, 1), np.uint16), kind, (0, 0))


def test_unknown_names_give_the_choices():
    with pytest.raises(UserError, match=r"data\.degrade='dark': choose one of none, noise"):
        degrade.apply(flat(0), "dark", (0, 0))
    with pytest.raises(UserError, match=r"data\.filter='median5': choose one of none, median3"):
        filters.apply(flat(0), "median5")
    with pytest.raises(UserError, match=r"data\.filter=.*8-bit.*float32"):
        filters.apply(np.zeros((4, 4, 1), np.float32), "sobel3")


@pytest.mark.parametrize("name", filters.FILTERS)
def test_every_filter_keeps_shape_and_type_channel_by_channel(name):
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    result = filters.apply(image, name)
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(result[..., 1:2], filters.apply(image[..., 1:2], name))


@pytest.mark.parametrize("name", ["median3", "median9", "gaussian3", "gaussian9", "bilateral9"])
def test_smoothing_keeps_a_flat_image(name):
    np.testing.assert_array_equal(filters.apply(flat(77, 16), name), 77)


@pytest.mark.parametrize("name", ["sobel3", "sobel9_dx", "sobel9_clip8", "frangi"])
def test_edges_of_a_flat_image_are_0(name):
    np.testing.assert_array_equal(filters.apply(flat(77, 16), name), 0)


def test_median_repeats_the_edge():
    image = np.array([[9, 1, 5], [7, 3, 2], [4, 8, 6]], np.uint8)[..., None]
    result = filters.apply(image, "median3")[..., 0]
    assert result[1, 1] == 5  # of 1..9
    assert result[0, 0] == 7  # of 9 9 1 9 9 1 7 7 3
    assert np.all(filters.apply(spot(255), "median9") == 0)


def test_gaussian_weights():
    # [1 2 1]/4 twice: 160 * (1 2 1)/4 * 1/2
    np.testing.assert_array_equal(
        filters.apply(spot(160), "gaussian3")[5, 3:8, 0], [0, 20, 40, 20, 0]
    )
    # sigma 1.7: [4 13 30 51 60 51 30 13 4]/256 to the nearest 1/256
    expected = np.array([4, 13, 30, 51, 60, 51, 30, 13, 4]) * 60 * 255 / 256**2
    found = filters.apply(spot(255), "gaussian9")[5, 1:10, 0]
    np.testing.assert_allclose(found, expected, atol=0.6)


def test_bilateral_weights_within_a_disc():
    image = np.full((5, 5, 1), 100, np.uint8)
    image[2, 3] = 120
    image[1, 1] = 0  # a diagonal neighbor is outside a disc of radius 1
    # color weight exp(-20^2/200) = 0.1353, space weight exp(-1/200) = 0.9950
    near, far = 0.9950, 0.9950 * 0.1353
    mean = (100 + 3 * near * 100 + far * 120) / (1 + 3 * near + far)
    assert filters.apply(image, "bilateral3")[2, 2, 0] == round(mean) == 101
    # an edge of 100 gray values survives, where a Gaussian would smear it
    image = flat(50, 16)
    image[:, 8:] = 150
    np.testing.assert_array_equal(filters.apply(image, "bilateral9"), image)


def test_sobel_of_a_step_and_a_ramp():
    image = flat(0, 9)
    image[:, 5:] = 10
    # gx = 4 * 10 in the two columns beside the step
    raw = filters.apply(image, "sobel3_clip8")[4, :, 0]
    np.testing.assert_array_equal(raw, [0, 0, 0, 0, 40, 40, 0, 0, 0])
    scaled = filters.apply(image, "sobel3")[4, :, 0]
    np.testing.assert_array_equal(scaled, [0, 0, 0, 0, 255, 255, 0, 0, 0])
    assert np.all(filters.apply(image, "sobel3_dy") == 0)
    falling = 255 - image
    assert np.all(filters.apply(falling, "sobel3_dx_clip8") == 0)
    np.testing.assert_array_equal(
        filters.apply(falling, "sobel3_dx"), filters.apply(image, "sobel3")
    )


def test_sobel_9_kernel():
    # one spot of 1: |gx| along the middle row is |derivative| * 70
    derivative = np.abs([-1, -6, -14, -14, 0, 14, 14, 6, 1]) * 70.0
    result = filters.apply(spot(1), "sobel9_dx")[5, 1:10, 0]
    np.testing.assert_array_equal(result, np.rint(derivative * 255 / derivative.max()))


def test_frangi_follows_dark_lines_and_its_counterpart_bright_ones():
    rows, columns = np.mgrid[:64, :64]
    on_ring = np.abs(np.hypot(rows - 32, columns - 32) - 20) < 1.5
    image = np.where(on_ring, 40, 200).astype(np.uint8)[..., None]
    dark, bright = filters.apply(image, "frangi"), filters.apply(255 - image, "frangi_bright")
    assert dark.max() == 255
    assert dark[on_ring].mean() > 150
    assert dark[28:36, 28:36].max() < 30
    np.testing.assert_allclose(dark.astype(int), bright, atol=1)
    assert filters.apply(image, "frangi_bright")[on_ring].mean() < 30
