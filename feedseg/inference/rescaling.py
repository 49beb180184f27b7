"""A network on pages of another size: objects as large as those it was trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from feedseg.inference import rotation
from feedseg.inference.predictor import Predictor
from feedseg.io import resample
from feedseg.io.calibration import Calibration, micrometers
from feedseg.io.resample import LEAST, MOST
from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import note

Network = Callable[[np.ndarray], np.ndarray]
TOLERANCE = 1.1  # times the pixel size of the training, or a part of it: seen as it is


def check(scale: float | None) -> None:
    """Raises UserError for a scale that is none; None: by the pixel sizes."""
    if scale is not None and not LEAST <= scale <= MOST:
        raise UserError(f"--scale {scale:g}: from {LEAST:g} to {MOST:g}, 0.5 halves the image")


def may_apply(predictor: Predictor, scale: float | None) -> bool:
    """Whether there may be images that the network sees at another size."""
    return bool(predictor.training_images.pixel_um) if scale is None else scale != 1


def choose(
    path: Path, calibration: Calibration | None, predictor: Predictor, scale: float | None
) -> float:
    """How many times as large the network sees an image; decisions are said.

        scale = p / p_0

    for pixels of p µm where those of the training have p_0, 1 within `TOLERANCE`, or where one of
    both is not known; a scale that is given counts in any case.
    """
    trained, pixel = predictor.training_images.pixel_um, micrometers(calibration)
    if scale is not None or not trained:
        return 1.0 if scale is None else scale
    usual = f"in training {trained:.3g} µm"
    if not pixel:
        note("no pixel size", f"{path}: states no pixel size, {usual}; taken as it is, or --scale")
        return 1.0
    wanted, sides = pixel / trained, calibration.pixel_height / calibration.pixel_width
    if not 1 / TOLERANCE <= sides <= TOLERANCE:
        note("not square", f"{path}: its pixels are not square; taken as it is, or --scale")
        return 1.0
    if 1 / TOLERANCE <= wanted <= TOLERANCE:
        return 1.0
    if not LEAST <= wanted <= MOST:
        note(
            "another unit",
            f"{path}: pixels of {pixel:.3g} µm, {usual}: too far apart to be true, taken as it "
            "is; correct the file, or give --scale",
        )
        return 1.0
    note(
        f"pixel size {wanted:.2g}",
        f"{path}: pixels of {pixel:.3g} µm, {usual}: seen {wanted:.3g} times as large, results "
        "keep the size of the image; --scale 1 takes it as it is",
    )
    return wanted


def rotated(network: Network, image: np.ndarray, scale: float, rotations: int) -> np.ndarray:
    """Probabilities [H, W, K] of an image [H, W, C], which the network sees `scale` times as large.

    rotations: see `rotation.mean`. The whole page is held.
    """
    seen = resample.image(image, resample.scaled(image.shape[:2], (scale, scale)))
    return resample.image(rotation.mean(network, seen, rotations), image.shape[:2])
