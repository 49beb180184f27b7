"""A model of a few lines, for the tests of everything around one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from feedseg.inference import backends, predict
from feedseg.inference.outputs import plan
from feedseg.inference.predictor import TrainingImages
from feedseg.io.reading import ReadOptions

NAMES, COLORS = ("dark", "bright"), ((0, 0, 0), (255, 255, 0))


def bright(image: np.ndarray) -> np.ndarray:
    """P(bright) = mean gray value of the 5x5 neighborhood: receptive radius 2 px."""
    mean = uniform_filter(image.mean(-1), size=(0, 5, 5), mode="constant")
    return np.stack([1 - mean, mean], -1).astype(np.float32)


class Fake(NamedTuple):
    apply: object = staticmethod(bright)
    answers: object = None
    stride: int = 4
    halo: int = 2
    window: int = 0
    margin: int = 0
    channels: int = 1
    class_names: tuple = NAMES
    class_colors: tuple = COLORS
    normalization: str = "dtype_range"
    percentiles: tuple = (1.0, 99.0)
    tile: int = 0
    contracts: tuple = ()
    training_images: TrainingImages = TrainingImages()


def run(inputs, output, trained=None, **options):
    """`predict.predict` without a stored run."""
    tile, channels = options.pop("tile", 0), options.pop("channels", ())
    scale = options.pop("scale", None)
    overwrite = options.pop("overwrite", False)
    planned = plan.plan_jobs(inputs, Path(output), plan.OutputOptions(**options))
    if not overwrite:
        plan.refuse_existing(planned)
    how = predict.ImageOptions(tile=tile, scale=scale, how=ReadOptions(channels=channels))
    return predict.predict_files(trained or Fake(), planned, how, progress=False)


def stand_in(monkeypatch, apply=bright) -> list:
    """Every model is `Fake(apply)`; returns the list of those that will be asked for."""
    loaded = []

    def load(path, checkpoint, rounds, **_):
        loaded.append((path, checkpoint))
        return Fake(apply)

    monkeypatch.setattr(backends, "load", load)
    return loaded
