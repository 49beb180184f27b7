"""The images that several runs were all validated, or all tested, with.

Nothing that one of them was trained with is among them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg import datasets
from feedseg.datasets.common import splits as folds
from feedseg.datasets.common.dataset import Dataset
from feedseg.inference.trained import JaxPredictor
from feedseg.io import normalize
from feedseg.runs.directory import RunDir, read_json
from feedseg.runtime.errors import UserError


class Part(NamedTuple):
    """Some items of a data set. sets: it as each run normalizes it; images and truth are alike."""

    sets: tuple[Dataset, ...]
    items: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """[N, H, W] uint8, 255 where the truth is unknown."""
        return self.sets[0].labels[self.items]

    @property
    def sources(self) -> np.ndarray:
        """[N] the image that each item was cut from."""
        return self.sets[0].source_ids[self.items]


def common_parts(runs: Sequence[Path]) -> tuple[Part, Part]:
    """The validation items and the test items that the runs have in common.

    Raises UserError, naming the runs, if the data are not here, have changed, differ between two
    runs, or if their validation or their test parts have nothing in common.
    """
    sets, splits, loaded = [], [], {}
    for run in runs:
        dataset, split = _of_run(Path(run), loaded)
        sets.append(dataset)
        splits.append(split)
        _check_same(runs[0], sets[0], run, dataset)
    parts = []
    for name, word in (("val", "validation"), ("test", "test")):
        items = getattr(splits[0], name)
        for run, split in zip(runs, splits, strict=True):
            items = np.intersect1d(items, getattr(split, name))
            if not len(items):
                raise UserError(
                    f"{runs[0]} and {run}: no image is in the {word} parts of all the runs up to "
                    "here; runs of one fold can be compared, and weights be learned for them"
                )
        parts.append(Part(tuple(sets), items))
    return parts[0], parts[1]


def _of_run(run: Path, loaded: dict[str, Dataset]) -> tuple[Dataset, folds.Split]:
    """loaded: data sets by what decides them, each read once."""
    if not run.is_dir():
        raise UserError(f"{run}: a model file does not hold its data; give run directories")
    directory = RunDir(run)
    config = directory.stored_config()
    key = json.dumps([config.data.to_dict(), config.data_dir, config.split.fold])
    if key not in loaded:
        loaded[key] = datasets.load(config)
    dataset = loaded[key]
    if dataset.fingerprint() != read_json(directory.data)["fingerprint"]:
        raise UserError(f"{run}: the data here are not those of the run")
    return dataset, folds.split(dataset, config.split)


def _check_same(first: Path, one: Dataset, second: Path, other: Dataset) -> None:
    for what in ("class_names", "images", "labels", "source_ids"):
        if not np.array_equal(getattr(one, what), getattr(other, what)):
            raise UserError(
                f"{first} and {second} were not trained with the same data: {what} differ"
            )


def answers(members: Sequence[JaxPredictor], part: Part) -> Iterator[np.ndarray]:
    """The members' probabilities for one item after the other, [S, H, W, K] float32."""
    from tqdm import tqdm

    for item in tqdm(part.items, desc="members", unit="image", disable=None):
        several = []
        for member, data in zip(members, part.sets, strict=True):
            image = normalize.apply(data.images[item], data.low[item], data.high[item])
            several.append(member.apply(image.reshape(1, *data.images.shape[1:])))
        yield np.stack([np.asarray(each[0]) for each in several])
