"""A real image as the proof of a model file: the middle of a file, as the model takes it."""

from pathlib import Path

import numpy as np

from feedseg.inference import segment
from feedseg.inference.trained import JaxPredictor
from feedseg.io import normalize, percentiles
from feedseg.io.source import open_source
from feedseg.runtime.errors import UserError

SIDE = 128  # px at most, so that the probabilities beside it stay small
STEP = 2.0**-12  # of the probabilities kept


def crop(model: JaxPredictor, path: Path) -> np.ndarray:
    """The middle of the first page of an image file, [1, h, w, C] float32 in [0, 1].

    Normalized by the limits of the whole page, as in prediction. Its sides are `SIDE` or the
    largest multiples of the model's stride that fit, or what a network of whole images takes.
    Raises UserError for an image that the model cannot take or that is too small.
    """
    with open_source(path) as file:
        source = segment.FittingImage(file, model)
        limits = percentiles.limits(source, 0, model.normalization, model.percentiles)
        page = normalize.apply(source.rows(0, 0, source.height), *limits)
    side = model.window or max(SIDE // model.stride, 1) * model.stride
    sizes = [min(side, n // model.stride * model.stride) for n in page.shape[:2]]
    if min(sizes) < (model.window or model.stride):
        raise UserError(f"{path}: too small, at least {model.window or model.stride} px are needed")
    top, left = ((have - size) // 2 for have, size in zip(page.shape[:2], sizes, strict=True))
    return page[None, top : top + sizes[0], left : left + sizes[1]]


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """To multiples of `STEP`, which take a fraction of the bytes when they are packed."""
    return (np.rint(np.asarray(probabilities) / STEP) * STEP).astype(np.float32)
