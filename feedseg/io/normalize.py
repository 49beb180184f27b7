"""One normalization contract: raw gray values to [0, 1] by two limits of the whole image.

    x = clip((raw - low) / (high - low), 0, 1)

The limits belong to the image (never to a tile or a crop) and the rule that gives them is stored
with the model, so training, evaluation and prediction agree.
"""

import numpy as np

from feedseg.runtime.errors import UserError

KINDS = ("dtype_range", "image_percentile")


def limits(image: np.ndarray, kind: str, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Raw values that become 0 and 1.

    image: [h, w, C] raw. kind: `dtype_range` gives 0 and the largest value of the integer type
    (0 and 1 for floating point); `image_percentile` gives the two percentiles (in percent) over
    all pixels and channels of the image.
    Raises UserError for an unknown kind.
    """
    if kind == "dtype_range":
        top = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1.0
        return 0.0, float(top)
    if kind == "image_percentile":
        low, high = np.percentile(image, percentiles)
        above = np.nextafter(np.float32(low), np.float32(np.inf))  # of one gray value: all 0
        return float(low), float(max(high, above))
    raise UserError(f"data.normalization={kind!r}: choose one of {', '.join(KINDS)}")


def apply(raw, low, high, xp=np):
    """`clip((raw - low) / (high - low), 0, 1)` in float32; limits broadcast over [..., H, W, C].

    xp: numpy, or jax.numpy inside a jitted function.
    """
    low = xp.asarray(low, xp.float32)[..., None, None, None]
    high = xp.asarray(high, xp.float32)[..., None, None, None]
    return xp.clip((raw.astype(xp.float32) - low) / (high - low), 0.0, 1.0)
