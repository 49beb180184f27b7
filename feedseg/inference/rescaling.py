"""A network on a page of another size: objects as large as those it was trained on."""

from collections.abc import Callable

import numpy as np

from feedseg.inference import rotation
from feedseg.runtime.errors import UserError

Network = Callable[[np.ndarray], np.ndarray]
LEAST, MOST = 1 / 16, 16.0


def check(scale: float) -> None:
    """Raises UserError for a scale that is none."""
    if not LEAST <= scale <= MOST:
        raise UserError(f"--scale {scale:g}: from {LEAST:g} to {MOST:g}, 0.5 halves the image")


def apply(network: Network, image: np.ndarray, scale: float, rotations: int = 0) -> np.ndarray:
    """Probabilities [H, W, K] of an image [H, W, C], which the network sees `scale` times as large.

    Bilinear; images are smoothed before they are made smaller. rotations: see `rotation.mean`.
    """
    seen = _resized(image, [max(1, round(scale * side)) for side in image.shape[:2]])
    found = rotation.mean(network, seen, rotations) if rotations > 1 else network(seen)
    return _resized(found, image.shape[:2])


def _resized(image: np.ndarray, sides) -> np.ndarray:
    from skimage.transform import resize

    if tuple(sides) == image.shape[:2]:
        return image
    smaller = sides[0] < image.shape[0]
    found = resize(image, tuple(sides), order=1, mode="reflect", anti_aliasing=smaller)
    return found.astype(np.float32, copy=False)
