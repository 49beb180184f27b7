"""Images that are not like those a model was trained on: said, since their classes mean little."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg.inference.predictor import Predictor
from feedseg.inference.segment import FittingImage
from feedseg.io import normalize, object_size
from feedseg.io.calibration import Calibration, micrometers
from feedseg.runtime.notes import note

_SIZE = 1.5  # times the largest, or a part of the smallest usual diameter in training
_PIXEL = 1.25  # times the pixel size of the training images, or a part of it
_SEEN_PX = 2**22  # of an image that are looked at


def on_range(path: Path, brightest: float, dtype: np.dtype, predictor: Predictor) -> None:
    """Gray values that `dtype_range` makes nearly black, other than in training."""
    contracts = predictor.contracts or ((predictor.normalization, predictor.percentiles),)
    if not any(kind == "dtype_range" for kind, _ in contracts):
        return
    part = brightest / normalize.full_scale(dtype)
    if 0 < part < normalize.DIM * predictor.training_images.brightest:
        note(
            "dim",
            f"{path}: the highest gray value, {brightest:g}, is {100 * part:.2g} % of the range of "
            f"{dtype}, which the model takes for white: classes are likely wrong; give --range "
            f"0-{brightest:g} (the camera's range) or --normalization image_percentile",
        )


def on_pixel_size(
    path: Path, calibration: Calibration | None, predictor: Predictor, scale: float
) -> None:
    """A pixel size other than in training."""
    trained = predictor.training_images.pixel_um
    pixel = micrometers(calibration)
    if not trained or not pixel:
        return
    off = pixel / scale / trained
    if not 1 / _PIXEL <= off <= _PIXEL:
        note(
            "pixel size",
            f"{path}: pixels of {pixel:.3g} µm, in training {trained:.3g} µm; "
            f"--scale {pixel / trained:.2g} makes them alike",
        )


def on_result(
    source: FittingImage, labels: np.ndarray, predictor: Predictor, scale: float = 1.0
) -> None:
    """Gray values and sizes of objects; labels: of all pages, [P H, W]."""
    on_range(source.path, source.brightest, source.dtype, predictor)
    sizes = SizeCheck()
    sizes.add(labels)
    sizes.say(source.path, source.height, predictor, scale)


class SizeCheck:
    """Looks at the classes of one image, as far as `_SEEN_PX` go."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._seen = 0

    def add(self, labels: np.ndarray) -> None:
        """The next rows, [h, W]."""
        if self._seen < _SEEN_PX:
            self._rows.append(labels[: 1 + _SEEN_PX // labels.shape[-1]])
            self._seen += labels.size

    def say(self, path: Path, height: int, predictor: Predictor, scale: float) -> None:
        """Objects whose size is not that of training. height: of a page, px."""
        usual = predictor.training_images.objects
        if not usual or not self._rows:
            return
        rows = np.concatenate(self._rows)
        pages = [rows[at : at + height] for at in range(0, len(rows), height)]
        found = object_size.diameters(pages, len(predictor.class_names))
        for number, size in found.items():
            name = predictor.class_names[number]
            trained = usual.get(name)
            if trained and not trained.low / _SIZE <= scale * size.median <= trained.high * _SIZE:
                note(
                    "scale",
                    f"{path}: {name} of {size.median:g} px in diameter (median), in training "
                    f"{trained.median:g} px ({trained.low:g} to {trained.high:g}); where the "
                    f"images have another scale, try --scale {trained.median / size.median:.2g}",
                )


def on_nothing(files: Sequence[Path], of: int, predictor: Predictor) -> None:
    """Images in which only the first class was found."""
    if files:
        others = f" and {len(files) - 1} more of {of} images" if len(files) > 1 else ""
        note("nothing", f"{files[0]}{others}: only {predictor.class_names[0]} was found")
