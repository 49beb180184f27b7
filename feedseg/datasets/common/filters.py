"""Classical filters applied to 8-bit images before a network sees them.

Source: the preprocessing methods compared in the AEP + AWEL paper. Kernels and borders follow
OpenCV (reflect-101 except the median, which repeats the edge). Every channel is filtered by
itself, the result is uint8 of the same shape.
"""

from functools import partial

import numpy as np
import scipy

from feedseg.runtime.errors import UserError

# (derivative, smoothing) kernels of OpenCV's Sobel operator
SOBEL = {
    3: ((-1, 0, 1), (1, 2, 1)),
    9: ((-1, -6, -14, -14, 0, 14, 14, 6, 1), (1, 8, 28, 56, 70, 56, 28, 8, 1)),
}
# Smoothing kernels that OpenCV takes from k: a fixed one for 3, sigma = 0.3((k-1)/2 - 1) + 0.8 else
GAUSSIAN = {
    3: np.array([1, 2, 1]) / 4,
    9: np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.7**2)),
}
BILATERAL_SIGMA_COLOR = 10.0  # gray values; larger ones would act like the Gaussian
BILATERAL_SIGMA_SPACE = 10.0  # px
FRANGI_SIGMAS = (1, 3, 5, 7, 9)  # px


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0.0, 255.0)).astype(np.uint8)


def _to_full_range(values: np.ndarray) -> np.ndarray:
    """`255 x / max(x)`; an image that is 0 everywhere stays 0."""
    top = values.max()
    return _to_uint8(values * (255.0 / top if top > 0 else 0.0))


def _separable(plane: np.ndarray, rows, columns) -> np.ndarray:
    """Correlation with `rows` along axis 0 and `columns` along axis 1, reflect-101."""
    along_rows = scipy.ndimage.correlate1d(plane.astype(np.float64), rows, axis=0, mode="mirror")
    return scipy.ndimage.correlate1d(along_rows, columns, axis=1, mode="mirror")


def _median(plane: np.ndarray, size: int) -> np.ndarray:
    return scipy.ndimage.median_filter(plane, size=size, mode="nearest")


def _gaussian(plane: np.ndarray, size: int) -> np.ndarray:
    kernel = GAUSSIAN[size] / GAUSSIAN[size].sum()
    return _to_uint8(_separable(plane, kernel, kernel))


def _bilateral(plane: np.ndarray, size: int) -> np.ndarray:
    """Mean of the neighbors q within radius `size // 2`, with the weights

        exp(-|p - q|^2 / 2 sigma_space^2) exp(-(I_p - I_q)^2 / 2 sigma_color^2)

    The neighborhood is a disc, which skimage's version (a square, binned colors) is not.
    """
    radius = size // 2
    height, width = plane.shape
    center = plane.astype(np.float64)
    padded = np.pad(center, radius, mode="reflect")
    total, weights = np.zeros_like(center), np.zeros_like(center)
    for y, x in np.ndindex(size, size):
        distance = (y - radius) ** 2 + (x - radius) ** 2
        if distance > radius**2:
            continue
        neighbor = padded[y : y + height, x : x + width]
        weight = np.exp(
            -distance / (2 * BILATERAL_SIGMA_SPACE**2)
            - (neighbor - center) ** 2 / (2 * BILATERAL_SIGMA_COLOR**2)
        )
        total += weight * neighbor
        weights += weight
    return _to_uint8(total / weights)


def _sobel(plane: np.ndarray, size: int, component: str = "", output: str = "") -> np.ndarray:
    """Gradient `sqrt(gx^2 + gy^2)`, or one component (`dx`, `dy`), of the Sobel operator.

    output: `` divides the absolute value by its maximum in the image; `clip8` cuts the raw value
    to 0..255 as an 8-bit output does, which drops negative slopes and saturates most edges.
    """
    derivative, smoothing = SOBEL[size]
    gx = _separable(plane, smoothing, derivative)
    gy = _separable(plane, derivative, smoothing)
    value = {"": np.hypot(gx, gy), "dx": gx, "dy": gy}[component]
    return _to_uint8(value) if output == "clip8" else _to_full_range(np.abs(value))


def _frangi(plane: np.ndarray, black_ridges: bool) -> np.ndarray:
    """Vesselness, the largest over sigma of `exp(-R^2/2 beta^2) (1 - exp(-S^2/2 gamma^2))`.

    R = |l1|/|l2|, S = sqrt(l1^2 + l2^2) of the Hessian's eigenvalues, 0 where l2 has the sign of
    the other kind of ridge; beta 0.5, gamma half the largest Hessian norm (skimage's defaults).
    """
    from skimage.filters import frangi  # slow to import

    return _to_full_range(frangi(plane, sigmas=FRANGI_SIGMAS, black_ridges=black_ridges))


def _table() -> dict:
    table = {"none": None}
    for size in (3, 9):
        table[f"median{size}"] = partial(_median, size=size)
        table[f"gaussian{size}"] = partial(_gaussian, size=size)
        table[f"bilateral{size}"] = partial(_bilateral, size=size)
        for component in ("", "dx", "dy"):
            for output in ("", "clip8"):
                name = "_".join(filter(None, (f"sobel{size}", component, output)))
                table[name] = partial(_sobel, size=size, component=component, output=output)
    table["frangi"] = partial(_frangi, black_ridges=True)
    table["frangi_bright"] = partial(_frangi, black_ridges=False)
    return table


FILTERS = _table()


def require_8_bit(image: np.ndarray, key: str, value: str) -> None:
    """Raises UserError naming the key `data.<key>` unless the image is uint8."""
    if image.dtype != np.uint8:
        raise UserError(
            f"data.{key}={value!r} is defined for 8-bit images, these are {image.dtype}: "
            f"use data.{key}='none' or convert the images to 8 bit"
        )


def apply(image: np.ndarray, name: str) -> np.ndarray:
    """The filtered image, uint8 [h, w, C].

    image: [h, w, C] uint8; any type for `none`, which returns it as it is.
    name: median, gaussian, bilateral or sobel followed by 3 or 9 (px), frangi for dark and
    frangi_bright for bright lines; sobel also with `_dx`, `_dy` and `_clip8`.
    Raises UserError for an unknown name or an image that is not 8-bit.
    """
    if name not in FILTERS:
        raise UserError(f"data.filter={name!r}: choose one of {', '.join(FILTERS)}")
    if name == "none":
        return image
    require_8_bit(image, "filter", name)
    planes = [FILTERS[name](image[..., channel]) for channel in range(image.shape[2])]
    return np.stack(planes, axis=-1)
