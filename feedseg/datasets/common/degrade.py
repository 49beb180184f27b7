"""Pseudo low quality: degradation of 8-bit images in one of three ways, before any scaling.

Source: AEP + AWEL paper, experiments on ISBI 2012. Images of all
parts are degraded once, with a fixed seed.
"""

import numpy as np
import scipy

from feedseg.datasets.common.filters import require_8_bit
from feedseg.runtime.errors import UserError

KINDS = ("none", "noise", "contrast", "blur")
NOISE_SIGMA = 100.0  # gray values
DARKENING = 100.0  # gray values
BLUR_SIZE = 5  # px
BLUR_SIGMA = 1.1  # px, the value that belongs to a kernel of 5 px


def apply(image: np.ndarray, kind: str, seed: tuple[int, ...]) -> np.ndarray:
    """The degraded image.

    image: [h, w, C] uint8; any type for `none`, which returns it as it is.
    noise:    round(clip(x + N(0, 100^2), 0, 255)), independent per pixel and channel
    contrast: clip(x - 100, 0, 255); the paper's "Gaussian noise, mu = -100, sigma = 0"
    blur:     Gaussian of 5 x 5 px and sigma 1.1 px, borders mirrored without the edge pixel
    seed: (seed, index of the image), so that every image has its own noise.
    Raises UserError for an unknown kind or an image that is not 8-bit.
    """
    if kind not in KINDS:
        raise UserError(f"data.degrade={kind!r}: choose one of {', '.join(KINDS)}")
    if kind == "none":
        return image
    require_8_bit(image, "degrade", kind)
    values = image.astype(np.float64)
    if kind == "noise":
        generator = np.random.default_rng(list(seed))
        values += generator.normal(0.0, NOISE_SIGMA, image.shape)
    elif kind == "contrast":
        values -= DARKENING
    else:
        values = scipy.ndimage.gaussian_filter(
            values, BLUR_SIGMA, mode="mirror", axes=(0, 1), radius=BLUR_SIZE // 2
        )
    return np.rint(np.clip(values, 0.0, 255.0)).astype(np.uint8)
