"""Segmenting arrays from Python: `feedseg.load(model).predict(array)`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.inference import backends, segment
from feedseg.io import images
from feedseg.io.source import ImageSource
from feedseg.runtime.errors import UserError


class Segmentation(NamedTuple):
    """What a model says about an image; the axes before H, W are those of the image.

    labels [..., H, W] uint8 class ids; probabilities [..., H, W, K] float32; uncertainty
    [..., H, W] float32 in bits, where it was asked for; class_names: of the ids.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    uncertainty: np.ndarray | None
    class_names: tuple[str, ...]


class Segmenter:
    """A trained model that takes arrays of any size.

    model: a run directory, a model file, or a name of `feedseg models`, or several of them, whose
    probabilities are averaged, or an ONNX file, which needs no JAX; checkpoint, rounds: see
    `feedseg.inference.loading.load`.
    Raises UserError if there is no such model.
    """

    def __init__(self, model: backends.Where, *, checkpoint: str = "best", rounds: int = 0):
        self.predictor = backends.read(model, checkpoint, rounds)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their ids."""
        return self.predictor.class_names

    @property
    def class_colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB 0-255 of the classes in the order of their ids."""
        return self.predictor.class_colors

    def predict(
        self,
        image: np.ndarray,
        *,
        dihedral: bool = False,
        rotations: int = 0,
        tile: int = 0,
        uncertainty: bool = False,
    ) -> Segmentation:
        """Classes of every pixel of an image or of a stack of images.

        image: [H, W] or [P, H, W] gray, [H, W, C] or [P, H, W, C] with the model's number of
        channels; raw values as a microscope gives them, 8 or 16 bit or float: they are scaled as
        in training, every page by itself. dihedral, rotations, tile, uncertainty: see
        `feedseg.inference.predict.predict`.
        Raises UserError for arrays that the model cannot take.
        """
        pages, single = _pages(np.asarray(image), self.predictor.channels)
        model = backends.for_images(self.predictor, dihedral, uncertainty)
        source = ImageSource(
            Path("image"), pages.shape, pages.dtype, lambda page, a, b: pages[page, a:b]
        )
        found = segment.predict_rows(model, segment.fitting(source, model), tile, rotations)
        results = np.concatenate(list(found)).reshape(*pages.shape[:3], -1)
        results = results[0] if single else results
        probabilities = results[..., : len(model.class_names)]
        return Segmentation(
            labels=probabilities.argmax(-1).astype(np.uint8),
            probabilities=probabilities,
            uncertainty=results[..., -1] if uncertainty else None,
            class_names=model.class_names,
        )


def _pages(image: np.ndarray, channels: int) -> tuple[np.ndarray, bool]:
    """[P, H, W, C] and whether it is one image; a last axis of C counts as channels."""
    if 0 in image.shape or image.ndim not in (2, 3, 4):
        raise UserError(f"image: shape {image.shape} is not that of an image or a stack of images")
    color = image.ndim > 2 and image.shape[-1] == channels
    if image.ndim == 4 and not color:
        raise UserError(f"image: {image.shape[-1]} channel(s), the model takes {channels}")
    if not color and channels != 1:
        raise UserError(f"image: shape {image.shape} has not the {channels} channels of the model")
    array = images.plain_type(Path("image"), image if color else image[..., None])
    single = array.ndim == 3
    return (array[None] if single else array), single
