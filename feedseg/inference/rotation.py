"""The mean of a network's answers to rotated versions of an image."""

import math
from collections.abc import Callable

import numpy as np
import scipy


def angles(count: int) -> list[float]:
    """`k 360 / count` degrees, k = 0 ... count - 1."""
    return [360 * k / count for k in range(count)]


def canvas(height: int, width: int, angle_deg: float) -> tuple[int, int]:
    """Size of the image that is shown to the network: itself, or a square that holds any turn."""
    if angle_deg == 0:
        return height, width
    side = math.ceil(math.hypot(height, width))
    return side, side


def turn(image: np.ndarray, angle_deg: float, size: tuple[int, int]) -> np.ndarray:
    """`image` [h, w, C] rotated counter-clockwise about its center, at `size` px, [H, W, C].

    Linear interpolation; outside, the image is mirrored. turn(turn(x, a, big), -a, old) is x but
    for the interpolation.
    """
    angle = math.radians(angle_deg)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle, new_middle = ((np.array(s) - 1) / 2 for s in (image.shape[:2], size))
    offset = middle - matrix @ new_middle
    planes = [
        scipy.ndimage.affine_transform(
            image[..., c], matrix, offset, size, np.float32, order=1, mode="mirror"
        )
        for c in range(image.shape[-1])
    ]
    return np.stack(planes, -1)


def mean(network: Callable[[np.ndarray], np.ndarray], image: np.ndarray, count: int) -> np.ndarray:
    """`1/n sum_k R_k^-1 q(R_k x)`, R_k the rotation by `k 360 / n` degrees, [H, W, K].

    network: [h, w, C] float32 of any size -> probabilities [h, w, K]; image: [H, W, C] float32.
    Source: Ronneberger et al., U-Net (2015), section 4: mean over 7 rotated versions of the input
    (its angles are not given; here they are equally spaced).
    """
    size = image.shape[:2]
    total = network(image)  # by 0 degrees
    for angle in angles(count)[1:]:
        seen = turn(image, angle, canvas(*size, angle))
        total = total + turn(network(seen), -angle, size)
    return total / count
