"""The facts about a data set that stay with a model trained on it."""

import numpy as np

from feedseg.datasets.common.dataset import Dataset
from feedseg.io import normalize, object_size

_MEASURED = 24  # items at most that the sizes of objects are taken from


def describe(dataset: Dataset, options) -> dict:
    """The facts about the data that prediction and reports need; options: the config's `data`."""
    return {
        "name": dataset.name,
        "class_names": list(dataset.class_names),
        "class_colors": [list(map(int, color)) for color in dataset.class_colors],
        "channels": dataset.images[0].shape[-1],
        "dtype": str(dataset.images[0].dtype),
        "items": len(dataset.images),
        "sources": len(set(dataset.source_ids.tolist())),
        "size_px": list(dataset.input_px),
        "class_fractions": dataset.class_fractions().round(6).tolist(),
        "normalization": dataset.normalization,
        "percentiles": list(options.percentiles),
        "fingerprint": dataset.fingerprint(),
        "training_images": _training_images(dataset),
    }


def _training_images(dataset: Dataset) -> dict:
    """What `feedseg.inference.predictor.TrainingImages` holds, as JSON stores it."""
    own = np.flatnonzero(dataset.copy_ids == 0)
    chosen = np.linspace(0, len(own) - 1, min(_MEASURED, len(own))).astype(int)
    labels = [dataset.labels[item] for item in own[chosen]]
    found = object_size.diameters(labels, dataset.num_classes).items()
    scale = normalize.full_scale(dataset.images[0].dtype)
    return {
        "objects": {dataset.class_names[number]: list(each) for number, each in found},
        "pixel_um": dataset.pixel_um,
        "brightest": round(float(max(image.max() for image in dataset.images)) / scale, 4),
    }
