"""The weight map of the original U-Net: narrow gaps between cells count more in the loss."""

import math

import numpy as np
import scipy

from feedseg.datasets.common.dataset import VOID

_FAR_SIGMAS = 6.0  # beyond it, w0 exp(-18) = 1.5e-8 w0 is taken as 0


def border_weights(label: np.ndarray, border: int, weight: float, sigma_px: float) -> np.ndarray:
    """`b(x) = w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))` on the pixels between cells, else 0.

    label: [h, w] class ids; border: the class that separates cells (background, or membrane); cells
    are the 4-connected components of all other labeled pixels; d1, d2: distances from a border
    pixel to the nearest pixel of the nearest and of the second nearest cell, px. weight: w0;
    sigma_px: sigma. Returns float32 [h, w]. With fewer than two cells near, 0.
    Source: Ronneberger et al., U-Net (2015), Eq. 2 (w0 = 10, sigma about 5 px). The class balance
    w_c of that equation is `loss.class_weight`.
    """
    cells, count = scipy.ndimage.label((label != border) & (label != VOID))
    nearest = np.full((2, *label.shape), np.inf, np.float32)
    far = math.ceil(_FAR_SIGMAS * sigma_px)
    for index, box in enumerate(scipy.ndimage.find_objects(cells, count), 1):
        window = tuple(slice(max(0, side.start - far), side.stop + far) for side in box)
        distance = scipy.ndimage.distance_transform_edt(cells[window] != index).astype(np.float32)
        first, second = nearest[:, *window]
        nearest[1][window] = np.minimum(second, np.maximum(first, distance))
        nearest[0][window] = np.minimum(first, distance)
    total = nearest.sum(0)
    near = (label == border) & (total <= far)
    result = np.zeros(label.shape, np.float32)
    result[near] = weight * np.exp(-(total[near] ** 2) / (2 * sigma_px**2))
    return result
