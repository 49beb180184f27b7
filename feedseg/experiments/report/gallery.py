"""The qualitative figure: test images, their truth, and the prediction of each method."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.experiments.report.collect import FinishedRun, Method
from feedseg.runs.directory import RunDir
from feedseg.runtime.errors import UserError


class Gallery(NamedTuple):
    """Names of the images shown, none if there is no figure, and the notes below it."""

    images: tuple[str, ...]
    notes: tuple[str, ...]


def gallery(
    methods: Sequence[Method], path: Path, count: int, metadata: Mapping[str, str]
) -> Gallery:
    """Draw `count` common test images of the methods: input, truth, the labels of each method.

    One run of each method predicts, all of one fold and of the lowest seed. A method without a
    checkpoint or without its data is left out and named.
    """
    chosen, notes = _chosen(methods)
    if not chosen:
        return Gallery((), (*notes, "No run has a checkpoint: no method can show its predictions."))
    if not count:
        return Gallery((), ("Left out (--images 0).",))
    from feedseg.evaluation import test_split  # brings JAX

    parts, cache = {}, {}
    for name, run in chosen.items():
        try:
            parts[name] = _test_part(run, cache)
        except UserError as error:
            notes.append(f"{name} is left out: {error.args[0]}")
    common = _common([test for _, test in parts.values()])
    if not len(common):
        return Gallery((), (*notes, "The methods have no test image in common."))
    items = test_split.evenly(common, count)
    columns = {}
    for name, (dataset, _) in parts.items():
        try:
            columns[name] = _predicted(chosen[name], dataset, items)
        except UserError as error:
            notes.append(f"{name} is left out: {error.args[0]}")
    if not columns:
        return Gallery((), tuple(notes))
    dataset = parts[next(iter(columns))][0]
    _draw(dataset, items, columns, path, metadata)
    fold = next(iter(chosen.values())).fold
    shown = ", ".join(f"{name}: seed {chosen[name].seed}" for name in columns)
    notes.append(f"Fold {fold}; {shown}.")
    return Gallery(tuple(dataset.item_names[item] for item in items), tuple(notes))


def _chosen(methods: Sequence[Method]) -> tuple[dict[str, FinishedRun], list[str]]:
    """A run per method, all of one fold and one test part; notes on the other methods."""
    methods = [m for m in methods if m.runs[0].output == "final"]
    candidates = [(m.name, run) for m in methods for run in m.runs if _has_checkpoint(run)]
    groups: dict[tuple, dict[str, FinishedRun]] = {}
    for name, run in candidates:  # sorted by fold and seed
        groups.setdefault((run.fold, run.condition), {}).setdefault(name, run)
    chosen = max(groups.values(), key=len, default={})
    missing = [m.name for m in methods if m.name not in chosen] if chosen else []
    return chosen, [f"{name} is left out: no checkpoint for these images." for name in missing]


def _has_checkpoint(run: FinishedRun) -> bool:
    folder = RunDir(run.folder).best
    return folder.is_dir() and any(folder.iterdir())


def _test_part(run: FinishedRun, cache: dict):
    """The data set of a run and the items of its test part.

    Raises UserError if the data are missing or differ from those of the run.
    """
    from feedseg import datasets
    from feedseg.datasets.common import splits
    from feedseg.evaluation import test_split
    from feedseg.runs.config import from_plain

    config = from_plain(run.config)
    key = json.dumps([run.config["data"], run.config["data_dir"], run.fold])
    if key not in cache:
        cache[key] = datasets.load(config)
    if cache[key].fingerprint() != run.result["data_hash"]:
        raise UserError("the data differ from those of the run")
    test = splits.split(cache[key], config.split).test
    return test_split.shown(cache[key]), test


def _common(parts: Sequence[np.ndarray]) -> np.ndarray:
    common = parts[0] if parts else np.zeros(0, int)
    for part in parts[1:]:
        common = np.intersect1d(common, part)
    return common


def _predicted(run: FinishedRun, dataset, items: np.ndarray) -> np.ndarray:
    """Labels that the run's best checkpoint gives to the items, int32 [n, H, W]."""
    from feedseg.evaluation.test_split import normalized
    from feedseg.inference.trained import load_run

    predictor = load_run(run.folder)
    images = normalized(dataset, items)
    return np.stack([np.asarray(predictor.apply(x[None]))[0].argmax(-1) for x in images])


def _draw(dataset, items: np.ndarray, columns: dict, path: Path, metadata) -> None:
    from feedseg.evaluation import test_split
    from feedseg.evaluation.panel import panel

    image = test_split.normalized(dataset, items)
    rows = []
    for n, item in enumerate(items):
        row = {"input": test_split.picture(np.asarray(image[n]))}
        row["truth"] = dataset.labels[item].astype(np.int32)
        rows.append(row | {name: labels[n].astype(np.int32) for name, labels in columns.items()})
    panel(rows, path, dataset.class_names, dataset.class_colors, metadata)
