"""One normalization contract: raw gray values to [0, 1] by two limits of the whole image.

    x = clip((raw - low) / (high - low), 0, 1)

The limits belong to the image (never to a tile or a crop) and the rule that gives them is stored
with the model, so training, evaluation and prediction agree.
"""

import numpy as np

from feedseg.runtime.errors import UserError

RULES = ("dtype_range", "image_percentile", "channel_percentile")
KINDS = (*RULES, "range")  # which needs two gray values
PERCENTILES = ("image_percentile", "channel_percentile")
DIM = 1 / 8  # of the full range: brightest values below it are hardly those of a whole range

Limits = tuple[np.ndarray | float, np.ndarray | float]


def limits(image: np.ndarray, kind: str, percentiles: tuple[float, float]) -> Limits:
    """Raw values that become 0 and 1: two numbers, or two arrays [C] with a pair for each channel.

    image: [h, w, C] raw. kind: `dtype_range` gives 0 and the largest value of the integer type
    (0 and 1 for floating point); `image_percentile` gives the two percentiles (in percent) over
    all pixels and channels of the image, `channel_percentile` those of each channel; `range` gives
    `percentiles` themselves, as raw values.
    Raises UserError for an unknown kind.
    """
    if kind == "dtype_range":
        return 0.0, full_scale(image.dtype)
    if kind == "range":
        return tuple(map(float, percentiles))
    if kind == "image_percentile":
        low, high = np.percentile(image, percentiles)
        return float(low), float(_above(low, high))
    if kind == "channel_percentile":
        low, high = np.percentile(image.reshape(-1, image.shape[-1]), percentiles, axis=0)
        return low, _above(low, high)
    raise UserError(f"data.normalization={kind!r}: choose one of {', '.join(KINDS)}")


def wrong_limits(kind: str, percentiles: tuple[float, float]) -> str:
    """What the two numbers must be for this kind, if they are not; empty if they can be used."""
    low, high = percentiles
    if kind in PERCENTILES and not 0 <= low < high <= 100:
        return "two rising numbers from 0 to 100"
    return "two rising numbers" if kind == "range" and not low < high else ""


def resolved(kind: str, channels: int, color: bool) -> str:
    """The kind for images of so many channels: percentiles of each channel where the channels are
    no color, such as two stains, of which the brighter one must not scale the other.
    """
    separate = kind == "image_percentile" and channels > 1 and not color
    return "channel_percentile" if separate else kind


def full_scale(dtype: np.dtype) -> float:
    """The largest value of an integer type; 1 for floating point."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def apply(raw, low, high, xp=np):
    """`clip((raw - low) / (high - low), 0, 1)` in float32.

    raw: [..., H, W, C]; low, high: numbers, [...] or, for each channel, [..., C]. xp: numpy, or
    jax.numpy inside a jitted function.
    """
    low, high = (_spread(xp.asarray(limit, xp.float32), raw.ndim) for limit in (low, high))
    return xp.clip((raw.astype(xp.float32) - low) / (high - low), 0.0, 1.0)


def _spread(limit, dimensions: int):
    """Limits [...] or [..., C] with the axes of an image [..., H, W, C]; two numbers stay so."""
    if not limit.ndim:
        return limit
    each = limit[..., None] if limit.ndim == dimensions - 3 else limit
    return each[..., None, None, :]


def _above(low, high):
    """`high`, or the next number after `low` where an image has one gray value: all becomes 0."""
    return np.maximum(high, np.nextafter(np.float32(low), np.float32(np.inf)))
