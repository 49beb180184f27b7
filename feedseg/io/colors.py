"""Label maps and images as RGB: the class colors, and labels laid over an image."""

from collections.abc import Sequence

import numpy as np

VOID_COLOR = (128, 128, 128)  # of label values that are no class id
_STAINS = np.array([(0, 1, 0), (1, 0, 1)])  # green, magenta
_TINTS = ((255, 0, 0), (0, 170, 255), (255, 200, 0))  # of white and gray classes, in turn


def tints(colors: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Colors that show on a gray image, RGB 0-255: white and gray classes get another, black ones
    stay black and let the image show.
    """
    gray = [len(set(color)) == 1 and any(color) for color in colors]
    order = np.cumsum(gray) - 1
    return [
        _TINTS[number % len(_TINTS)] if plain else tuple(color)
        for color, plain, number in zip(colors, gray, order, strict=True)
    ]


def overlay(
    image: np.ndarray, label: np.ndarray, colors: Sequence[Sequence[int]], opacity: float = 0.4
) -> np.ndarray:
    """Image tinted by class, uint8 [H, W, 3].

    image: [H, W] or [H, W, C]; float in [0, 1], uint8, or other integers (shown from their 0.5 to
    their 99.5 percentile); label: int [H, W]; colors: RGB 0-255 per class, used as `tints` of them.
    Black classes and label values that are no class stay untinted, so the image shows there.
    """
    base = as_rgb(np.asarray(image))
    table = np.array([*tints(colors), (0, 0, 0)], np.float64) / 255
    index = np.where((label >= 0) & (label < len(colors)), label, len(colors)).astype(np.intp)
    tint = table[index]
    weight = opacity * (tint.max(-1, keepdims=True) > 0)
    return np.rint(255 * ((1 - weight) * base + weight * tint)).astype(np.uint8)


def color_labels(label: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Label map as RGB, uint8 [H, W, 3]; values that are no class are gray (`VOID_COLOR`)."""
    table = np.array([*colors, VOID_COLOR], np.uint8)
    return table[np.where((label >= 0) & (label < len(colors)), label, len(colors)).astype(np.intp)]


def unit_range(image: np.ndarray) -> np.ndarray:
    """Image as float64 in [0, 1]: floats clipped, uint8 / 255, other integers by percentiles.

    The percentiles 0.5 and 99.5 over all pixels become 0 and 1: for display only.
    """
    if image.dtype.kind == "f":
        return np.clip(image.astype(np.float64), 0, 1)
    if image.dtype == np.uint8:
        return image / 255.0
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Image as it looks, float64 [H, W, 3] in [0, 1]: gray [H, W] or [H, W, 1], color [H, W, 3],
    others as `composite`.
    """
    if image.ndim == 2 or image.shape[2] == 1:
        return grey_as_rgb(unit_range(image.reshape(image.shape[:2])))
    return unit_range(image) if image.shape[2] == 3 else composite(image)


def composite(image: np.ndarray) -> np.ndarray:
    """Stains [H, W, C] in colors, float64 [H, W, 3] in [0, 1]: two in green and magenta, of more
    the first three in red, green and blue. Each from its 0.5 to its 99.5 percentile.
    """
    shown = _STAINS[: image.shape[2]] if image.shape[2] < 3 else np.eye(3)
    planes = image[..., : len(shown)].astype(np.float64)
    low, high = np.percentile(planes.reshape(-1, len(shown)), (0.5, 99.5), axis=0)
    return np.clip((planes - low) / np.maximum(high - low, 1e-12), 0, 1) @ shown


def grey_as_rgb(gray: np.ndarray) -> np.ndarray:
    """[H, W] repeated to [H, W, 3]."""
    return np.repeat(gray[..., None], 3, axis=-1)
