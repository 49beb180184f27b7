"""Images of any number of channels as pictures."""

import numpy as np
import pytest

from feedseg.io import colors

RNG = np.random.default_rng(0)


def test_gray_and_color_stay():
    gray = RNG.random((6, 7))
    for image in (gray, gray[..., None]):
        np.testing.assert_allclose(colors.as_rgb(image), np.repeat(gray[..., None], 3, -1))
    rgb = RNG.integers(0, 256, (6, 7, 3), np.uint8)
    np.testing.assert_allclose(colors.as_rgb(rgb), rgb / 255)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_every_stain_that_is_shown_has_its_own_color_and_contrast(channels):
    """A dim stain beside one that is a thousand times as bright."""
    image = np.zeros((9, 9 * channels, channels), np.float32)
    for channel in range(channels):
        image[:, 9 * channel : 9 * (channel + 1), channel] = 1000.0**channel
    shown = colors.as_rgb(image)
    assert shown.shape == (9, 9 * channels, 3) and shown.min() >= 0 and shown.max() <= 1
    columns = [shown[4, 9 * c + 4] for c in range(min(channels, 3))]
    assert all(color.max() == pytest.approx(1) for color in columns)
    assert len({tuple(color) for color in columns}) == len(columns)
