"""Train, validation and test parts of a data set.

A part is a sorted array of item indices. Parts are made of units: source images (all crops and
copies of one image together) or, where a paper splits crops, single items.
"""

from typing import NamedTuple

import numpy as np

from feedseg.datasets.common.dataset import Dataset
from feedseg.runtime.errors import UserError


class Split(NamedTuple):
    """Item indices of the three parts."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def thirds(units: np.ndarray, fold: int, folds: int, seed: int) -> list[np.ndarray]:
    """One seeded permutation cut into `folds` equal parts; part `fold` is held out.

    A third of the held-out part is validation, the rest test. AEP (2024): "divided 2 to 1 in
    numerical order", inference part 1:2.
    """
    parts = np.array_split(np.random.default_rng(seed).permutation(units), folds)
    held = parts[fold]
    cut = round(len(held) / 3)
    train = np.setdiff1d(units, held)
    return [train, held[:cut], held[cut:]]


def random_counts(
    units: np.ndarray, counts: tuple[int, ...], fold: int, seed: int
) -> list[np.ndarray]:
    """Seeded permutation cut at the counts; each fold has a permutation of its own."""
    _check_counts(units, counts)
    order = np.random.default_rng([seed, fold]).permutation(units)
    return np.split(order[: sum(counts)], np.cumsum(counts)[:2])


def rotate(
    units: np.ndarray, counts: tuple[int, ...], fold: int, folds: int, disjoint: bool
) -> list[np.ndarray]:
    """Units in file order as a ring: test from `n fold / folds` on, validation just before it.

    disjoint: the test parts share no unit (they end where the next begins, so their size may
    differ from the count); else they have the stated size and may overlap.
    """
    _check_counts(units, counts)
    count = len(units)
    start, end = count * fold // folds, count * (fold + 1) // folds
    size = end - start if disjoint else counts[2]
    ring = np.roll(units, -start)
    test, val = ring[:size], ring[count - counts[1] :]
    train = ring[size : count - counts[1]]
    return [train if disjoint else train[: counts[0]], val, test]


def ordered(units: np.ndarray, counts: tuple[int, ...]) -> list[np.ndarray]:
    """Units in file order: training, validation, test."""
    _check_counts(units, counts)
    return np.split(units[: sum(counts)], np.cumsum(counts)[:2])


def _check_counts(units: np.ndarray, counts: tuple[int, ...]) -> None:
    if sum(counts) > len(units) or min(counts) < 1:
        raise UserError(f"split.counts={tuple(counts)} do not fit {len(units)} items or images")


def split(dataset: Dataset, config) -> Split:
    """The parts that `config.split` describes.

    Raises UserError for an unknown scheme, a fold out of range or an empty part.
    """
    if config.folds < 1:
        raise UserError(f"split.folds={config.folds}: at least 1")
    if not 0 <= config.fold < config.folds:
        raise UserError(f"split.fold={config.fold}: choose 0 to {config.folds - 1}")
    scheme, by_source = config.scheme, config.group_by_source
    if scheme == "auto":
        scheme = "given" if dataset.parts else "thirds"
    if scheme in ("rotate", "disjoint", "ordered", "given"):
        by_source = True
    ids = dataset.source_ids if by_source else _item_ids(dataset)
    units = np.unique(ids)
    schemes = {
        "thirds": lambda: thirds(units, config.fold, config.folds, config.seed),
        "random": lambda: random_counts(units, config.counts, config.fold, config.seed),
        "rotate": lambda: rotate(units, config.counts, config.fold, config.folds, False),
        "disjoint": lambda: rotate(units, config.counts, config.fold, config.folds, True),
        "ordered": lambda: ordered(units, config.counts),
        "given": lambda: given(dataset),
    }
    if scheme not in schemes:
        raise UserError(f"split.scheme={scheme!r}: choose from {', '.join(schemes)}")
    parts = [np.flatnonzero(np.isin(ids, part)) for part in schemes[scheme]()]
    if not config.test_augmented:
        parts[1:] = [part[dataset.copy_ids[part] == 0] for part in parts[1:]]
    for name, part in zip(Split._fields, parts, strict=True):
        if not len(part):
            raise UserError(f"split: the {name} part is empty ({len(units)} units, {scheme})")
    return Split(*parts)


def given(dataset: Dataset) -> list[np.ndarray]:
    """The parts that the source fixes; without a validation part, every fifth training image."""
    parts = {name: np.asarray(ids) for name, ids in dataset.parts.items()}
    if "train" not in parts or "test" not in parts:
        raise UserError(
            f"split.scheme='given': dataset {dataset.name} fixes no train and test parts"
        )
    if "val" not in parts:
        parts["val"] = parts["train"][::5]
        parts["train"] = np.setdiff1d(parts["train"], parts["val"])
    return [parts["train"], parts["val"], parts["test"]]


def _item_ids(dataset: Dataset) -> np.ndarray:
    """One id per item; dihedral copies keep the id of their item."""
    return np.cumsum(dataset.copy_ids == 0) - 1
