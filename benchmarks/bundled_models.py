"""Scores of the bundled models on their own test parts, as 8, 12 and 16 bit images.

    python -m benchmarks.bundled_models --output results/benchmarks/bundled_models.json
    python -m benchmarks.bundled_models --recalibrate sstem isbi2012

`forms`: every image of the data set multiplied, so that its type is another and its scene is not;
`same`: IoU of the labels with those of the 8-bit images, the lowest of the classes. `--recalibrate`
writes a model anew with another rule for gray values (percentiles 0.1 and 99.9), the same weights,
and the scores that it then has.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from feedseg import datasets
from feedseg.datasets.common import dataset as base
from feedseg.datasets.common import splits, targets
from feedseg.evaluation import metrics
from feedseg.inference import bundled, loading, model_file, trained
from feedseg.io import normalize
from feedseg.runs import config as configs
from feedseg.runtime.files import write_json_atomic

CONFIGS = {
    "nuclei": "configs/baseline.py:model=unet,dataset=dsb2018",
    "wbc": "configs/baseline.py:model=unet,dataset=wbc",
    "sstem": "configs/baseline.py:model=unet,dataset=sstem",
    "isbi2012": "configs/baseline.py:model=unet,dataset=isbi2012",
}
FORMS = {"8 bit": (1, np.uint8), "12 bit": (16, np.uint16), "16 bit": (257, np.uint16)}
DIM = {"10 bit, dim": (1.5, np.uint16)}  # brightest about 380 of 65535
RULE, PERCENTILES = "image_percentile", (0.1, 99.9)
_BATCH = 8


def test_part(name: str, model, factor: float = 1, dtype=np.uint8):
    """(data set with every gray value multiplied, indices of its test part)."""
    config, _ = configs.parse_flags([f"--config={CONFIGS[name]}"])
    options = config.data.copy_and_resolve_references()
    with options.unlocked():
        options.normalization, options.percentiles = model.normalization, model.percentiles
        options.fold = config.split.fold
    root = datasets.find_root(options.name, config.data_dir)
    raw = datasets.module(options.name).load(root, options)
    sections = [
        s._replace(image=(s.image * np.float64(factor)).astype(dtype)) for s in raw.sections
    ]
    data = base.assemble(
        options.name, targets.prepare(raw._replace(sections=sections), options), options
    )
    return data, splits.split(data, config.split).test


def labels(model, data: base.Dataset, index: np.ndarray) -> np.ndarray:
    """Class ids of some items."""
    found = []
    for start in range(0, len(index), _BATCH):
        some = index[start : start + _BATCH]
        image = normalize.apply(data.images[some], data.low[some], data.high[some])
        found.append(np.asarray(model.apply(jnp.asarray(image))).argmax(-1))
    return np.concatenate(found)


def score(predicted: np.ndarray, data: base.Dataset, index: np.ndarray) -> dict[str, float]:
    """As in result.json."""
    truth = data.labels[index]
    counted = truth != base.VOID
    pairs = data.num_classes * truth[counted].astype(int) + predicted[counted]
    confusion = np.bincount(pairs, minlength=data.num_classes**2)
    confusion = confusion.reshape(data.num_classes, -1)
    return metrics.summary(confusion, data.class_names)


def same(a: np.ndarray, b: np.ndarray, classes: int) -> float:
    """The lowest IoU of a class between two label images."""
    each = [
        ((a == k) & (b == k)).sum() / max(1, ((a == k) | (b == k)).sum()) for k in range(classes)
    ]
    return float(min(each))


def forms(name: str) -> dict:
    """Scores of a model on its test part in each form."""
    model = loading.load(name)
    found, first = {}, None
    for form, (factor, dtype) in (FORMS | DIM).items():
        data, index = test_part(name, model, factor, dtype)
        predicted = labels(model, data, index)
        first = predicted if first is None else first
        mean = 100 * score(predicted, data, index)["miou"]
        found[form] = {"mean_iou": mean, "same": same(predicted, first, data.num_classes)}
        print(f"{name}, {form}: mean IoU {mean:.2f}, same {found[form]['same']:.3f}", flush=True)
    return measure.rounded({"normalization": model.normalization, "forms": found})


def recalibrate(name: str) -> None:
    """Write a model with another rule for gray values and its scores with that rule."""
    path = bundled.models()[name]
    content = model_file.read(path)
    model = loading.load(name)._replace(normalization=RULE, percentiles=PERCENTILES)
    data, index = test_part(name, model)
    described = {k: v for k, v in content.manifest.items() if k != "sha256"}
    seen = base.describe(data, _options(name))["training_images"]
    facts = {"normalization": RULE, "percentiles": list(PERCENTILES), "training_images": seen}
    described["facts"] = {**described["facts"], **facts}
    described["scores"] = {
        "final": score(labels(model, data, index), data, index),
        "dihedral": score(labels(trained.dihedral_mean(model), data, index), data, index),
    }
    pair = content.test_input, content.test_output
    model_file.write(path, described, content.variables, *pair, loading.proof(path))
    print(bundled.card(model_file.read_manifest(path)))


def _options(name: str):
    config, _ = configs.parse_flags([f"--config={CONFIGS[name]}"])
    return config.data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recalibrate", nargs="+", choices=tuple(CONFIGS), default=[])
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    for name in options.recalibrate:
        recalibrate(name)
    if options.output:
        found = {name: forms(name) for name in CONFIGS}
        write_json_atomic(options.output, {**measure.machine(), "models": found})


if __name__ == "__main__":
    main()
