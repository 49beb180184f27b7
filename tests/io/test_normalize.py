"""Limits of gray values: per image, per channel, fixed; whole and by slabs of rows."""

import numpy as np
import pytest

from feedseg.io import normalize, percentiles
from feedseg.io.source import ImageSource
from feedseg.runtime.errors import UserError

RNG = np.random.default_rng(0)


def source_of(page: np.ndarray) -> ImageSource:
    return ImageSource("image", (1, *page.shape), page.dtype, lambda _, a, b: page[a:b])


@pytest.mark.parametrize("kind", normalize.KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_limits_by_rows_are_those_of_the_page(kind, dtype):
    page = (RNG.random((30, 20, 3)) * [50, 100, 200]).astype(dtype)
    chosen = (3.0, 90.0)
    whole = normalize.limits(page, kind, chosen)
    slabs = percentiles.limits(source_of(page), 0, kind, chosen, height=7)
    for a, b in zip(whole, slabs, strict=True):
        np.testing.assert_allclose(a, b)
    assert np.shape(whole[1]) == ((3,) if kind == "channel_percentile" else ())


def test_every_channel_has_its_own_limits():
    """A bright stain beside a dim one does not make the dim one black."""
    dim = RNG.random((40, 40, 1))
    bright = 1000 * RNG.random((40, 40, 1))
    page = np.concatenate([dim, bright], -1).astype(np.float32)
    limits = normalize.limits(page, "channel_percentile", (1, 99))
    alone = normalize.limits(page[..., :1], "image_percentile", (1, 99))
    np.testing.assert_allclose(
        normalize.apply(page, *limits)[..., :1], normalize.apply(page[..., :1], *alone), atol=1e-6
    )
    joint = normalize.apply(page, *normalize.limits(page, "image_percentile", (1, 99)))
    assert joint[..., 0].max() < 0.01  # what it was


def test_limits_spread_over_images_and_channels():
    raw = RNG.integers(0, 100, (2, 4, 5, 3)).astype(np.uint8)
    low, high = np.array([0, 10]), np.array([50, 90])
    expected = np.stack(
        [np.clip((raw[i] - 1.0 * low[i]) / (high[i] - low[i]), 0, 1) for i in (0, 1)]
    )
    np.testing.assert_allclose(normalize.apply(raw, low, high), expected, atol=1e-6)
    low, high = np.zeros((2, 3)), np.array([[10, 20, 30], [40, 50, 60]])
    expected = np.clip(raw / high[:, None, None], 0, 1)
    np.testing.assert_allclose(normalize.apply(raw, low, high), expected, atol=1e-6)
    np.testing.assert_allclose(normalize.apply(raw[0], 0, 200), raw[0] / 200, atol=1e-6)


def test_which_images_get_limits_for_each_channel():
    assert normalize.resolved("image_percentile", 2, color=False) == "channel_percentile"
    assert normalize.resolved("image_percentile", 3, color=False) == "channel_percentile"
    assert normalize.resolved("image_percentile", 3, color=True) == "image_percentile"
    assert normalize.resolved("image_percentile", 1, color=False) == "image_percentile"
    assert normalize.resolved("dtype_range", 2, color=False) == "dtype_range"


def test_one_gray_value_becomes_0():
    for kind in normalize.PERCENTILES:
        page = np.full((4, 4, 2), 7, np.uint16)
        assert not normalize.apply(page, *normalize.limits(page, kind, (1, 99))).any()


def test_an_unknown_kind():
    with pytest.raises(UserError, match="choose one of dtype_range"):
        normalize.limits(np.zeros((2, 2, 1)), "minmax", (0, 100))
