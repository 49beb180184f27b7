"""Segmenting arrays from Python: `feedseg.load(model).predict(array)`."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.inference import backends, remarks, rescaling, segment
from feedseg.io import images, reading
from feedseg.io.calibration import Calibration
from feedseg.io.source import ImageSource
from feedseg.runtime import notes
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
        axes: str = "",
        normalization: str = "",
        value_range: tuple[float, float] = (),
        scale: float | None = None,
        pixel_um: float = 0.0,
    ) -> Segmentation:
        """Classes of every pixel of an image or of a stack of images.

        image: [H, W] or [P, H, W] gray, [H, W, C] or [P, H, W, C] with the model's number of
        channels; raw values as a microscope gives them, 8 or 16 bit or float: they are scaled as
        in training, every page by itself. An array [H, W, 3 or 4] is one image in color, as in
        files. axes: their letters, such as YXC, CYX or PYX, where that is not so (see
        `feedseg.io.reading.ReadOptions`). dihedral, rotations, tile, uncertainty, normalization,
        value_range, scale: see `feedseg.inference.predict.predict`. pixel_um: side of a pixel of
        this image, µm, by which it is rescaled; 0: not known.
        Raises UserError for arrays that the model cannot take or whose axes may mean two things.
        """
        rescaling.check(scale)
        if not 0 <= pixel_um < math.inf:
            raise UserError(f"pixel_um={pixel_um:g}: the side of a pixel, µm, 0 where not known")
        pages, before = _pages(np.asarray(image), self.predictor.channels, axes)
        model = backends.for_images(self.predictor, dihedral, uncertainty)
        model = segment.with_normalization(model, normalization, value_range)
        source = ImageSource(
            Path("image"), pages.shape, pages.dtype, lambda page, a, b: pages[page, a:b]
        )
        with notes.fresh():
            known = Calibration(pixel_um, pixel_um, "µm") if pixel_um else None
            scale = rescaling.choose(Path("image"), known, model, scale)
            seen = segment.FittingImage(source, model)
            found = list(segment.predict_rows(model, seen, tile, rotations, scale=scale))
            results = np.concatenate(found).reshape(*pages.shape[:3], -1)
            probabilities = results[..., : len(model.class_names)]
            labels = probabilities.argmax(-1).astype(np.uint8)
            remarks.on_result(seen, labels.reshape(-1, labels.shape[-1]), model, scale)
        results, probabilities, labels = (
            each.reshape(*before, *each.shape[1:]) for each in (results, probabilities, labels)
        )
        return Segmentation(
            labels=labels,
            probabilities=probabilities,
            uncertainty=results[..., -1] if uncertainty else None,
            class_names=model.class_names,
        )


def _pages(image: np.ndarray, channels: int, axes: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """[P, H, W, C] and the sizes of the axes that P stands for."""
    if 0 in image.shape:
        raise UserError(f"image: shape {image.shape} is that of an empty image")
    axes = reading.ReadOptions(axes).checked().axes
    if axes:
        reading.named("image", axes, image.shape)
    else:
        axes = reading.guessed("image", image.shape, channels)
    pages = images.plain_type(Path("image"), reading.to_pages(image, axes))
    sizes = zip(axes, image.shape, strict=True)
    return pages, tuple(size for axis, size in sizes if axis not in "YXCS")
