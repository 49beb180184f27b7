"""Images that are not like those a model was trained on: said, since their classes mean little."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg.inference.predictor import Predictor
from feedseg.inference.segment import FittingImage, contracts
from feedseg.io import normalize, object_size
from feedseg.runtime.notes import note

_SIZE = 1.5  # times the largest, or a part of the smallest usual diameter in training
_SEEN_PX = 2**22  # of an image that are looked at


def on_range(path: Path, brightest: float, dtype: np.dtype, predictor: Predictor) -> None:
    """Gray values that `dtype_range` makes nearly black, other than in training."""
    if not any(kind == "dtype_range" for kind, _ in contracts(predictor)):
        return
    part = brightest / normalize.full_scale(dtype)
    if 0 < part < normalize.DIM * predictor.training_images.brightest:
        note(
            "dim",
            f"{path}: the highest gray value, {brightest:g}, is {100 * part:.2g} % of the range of "
            f"{dtype}, which the model takes for white: classes are likely wrong; give --range "
            f"0-{brightest:g} (the camera's range) or --normalization image_percentile",
        )


def on_result(
    source: FittingImage, labels: np.ndarray, predictor: Predictor, scale: float = 1.0
) -> None:
    """Gray values and sizes of objects; labels: of all pages, [P H, W]."""
    on_range(source.path, source.brightest, source.dtype, predictor)
    sizes = SizeCheck(predictor)
    sizes.add(labels)
    sizes.end_image(source.path, source.height, scale)
    sizes.say()


class SizeCheck:
    """Looks at the objects found in images, in each as far as `_SEEN_PX` go."""

    def __init__(self, predictor: Predictor) -> None:
        self._usual, self._names = predictor.training_images.objects, predictor.class_names
        self._sizes = object_size.ObjectSizes(len(self._names))
        self._first: Path | None = None
        self._scales: set[float] = set()
        self.begin_image()

    def begin_image(self) -> None:
        """Another image follows; what there is of one that failed is forgotten."""
        self._rows: list[np.ndarray] = []
        self._seen = 0

    def add(self, labels: np.ndarray) -> None:
        """The next rows of the image, [h, W]."""
        if self._usual and self._seen < _SEEN_PX:
            self._rows.append(labels[: 1 + _SEEN_PX // labels.shape[-1]])
            self._seen += labels.size

    def end_image(self, path: Path, height: int, scale: float = 1.0) -> None:
        """The image is whole. height: of a page, px; scale: the network saw it at."""
        self._first = self._first or path
        if self._rows:
            rows = np.concatenate(self._rows)
            for at in range(0, len(rows), height):
                self._sizes.add(rows[at : at + height], scale)
            self._scales.add(scale)
        self.begin_image()

    def say(self) -> None:
        """Objects whose size, as the network sees them, is not that of training."""
        scale = next(iter(self._scales)) if len(self._scales) == 1 else 1.0
        of = "all images" if len(self._scales) < 2 else "all images, at the scales of the network"
        for number, size in self._sizes.diameters().items():
            name = self._names[number]
            trained = self._usual.get(name)
            if trained and not trained.low / _SIZE <= size.median <= trained.high * _SIZE:
                note(
                    "scale",
                    f"{self._first}: {name} of {size.median / scale:.4g} px in diameter (median of "
                    f"{of}), in training {trained.median:g} px ({trained.low:g} to "
                    f"{trained.high:g}); where the images have another scale, try --scale "
                    f"{scale * trained.median / size.median:.2g}",
                )


def on_nothing(files: Sequence[Path], of: int, predictor: Predictor) -> None:
    """Images in which only the first class was found."""
    if files:
        others = f" and {len(files) - 1} more of {of} images" if len(files) > 1 else ""
        note("nothing", f"{files[0]}{others}: only {predictor.class_names[0]} was found")
