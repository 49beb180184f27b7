"""Train, validation and test parts of a data set.

A part is a sorted array of item indices. Parts are made of units: groups of source images that
belong together (all pages of one file, all images of one patient), with all crops and copies of
each, or, where a paper splits crops, single items.
"""

from typing import NamedTuple, Protocol

import numpy as np

from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import note


class Items(Protocol):
    """What a split needs of a data set: see `dataset.Dataset`."""

    name: str
    source_ids: np.ndarray
    group_ids: np.ndarray
    copy_ids: np.ndarray
    labeled: np.ndarray  # [N] bool: whether any pixel of an item is labeled
    parts: dict[str, list[int]]


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


def whole_thirds(items: Items, fold: int, folds: int, seed: int) -> list[np.ndarray]:
    """`thirds` of the groups; of few groups parts that are not empty. Items without a labeled
    pixel are in none.

    From three groups on one is tested and one is for validation. Of two one is trained on and the
    other cut in two; one alone is cut into blocks of neighboring pages, or of crops, which is said,
    since what lies side by side looks alike.
    """
    used = np.flatnonzero(items.labeled)
    ids = items.group_ids[used]
    groups = np.unique(ids)
    parts = thirds(groups, fold, folds, seed) if len(groups) >= folds else []
    if len(groups) >= 3 and not all(map(len, parts or [()])):
        ring = np.roll(np.random.default_rng(seed).permutation(groups), -fold)
        parts = [np.sort(ring[2:]), ring[1:2], ring[:1]]
        note("split", f"{len(groups)} groups of images: one is tested, one is for validation")
    if parts:
        return [used[np.isin(ids, part)] for part in parts]
    own = items.copy_ids[used] == 0
    if len(groups) == 2 and (ids[own] == groups[1 - fold % 2]).sum() >= 2:
        held = used[ids == groups[1 - fold % 2]]
        whole = _item_ids(items)[held]  # with their copies
        first = np.isin(whole, np.array_split(np.unique(whole), 2)[0])
        note(
            "split", "two groups of images: one is for training, the other for validation and test"
        )
        return [used[ids == groups[fold % 2]], held[first], held[~first]]
    return _blocks(items, used, fold)


def _blocks(items: Items, used: np.ndarray, fold: int) -> list[np.ndarray]:
    """Blocks of neighboring pages, or of crops of one image; a sixth for validation and test."""
    sources = items.source_ids[used]
    pages = len(np.unique(sources)) >= 3
    ids = sources if pages else _item_ids(items)[used]
    units = np.unique(ids)
    if len(units) < 3:
        raise UserError(
            f"split: {len(units)} labeled image(s), at least 3 are needed, or crops of one: set "
            "data.crop_size to a third of its side"
        )
    held = max(1, round(len(units) / 6))
    ring = np.roll(units, -fold * 2 * held)
    what = "pages of one file" if pages else "crops of one image"
    note(
        "split",
        f"{what} are split in blocks: neighbors in two parts look alike, so scores are too high",
    )
    cuts = [len(units) - 2 * held, len(units) - held]
    return [used[np.isin(ids, part)] for part in np.split(ring, cuts)]


def split(dataset: Items, config) -> Split:
    """The parts that `config.split` describes; without items that have no labeled pixel.

    Raises UserError for an unknown scheme, a fold out of range or an empty part.
    """
    if config.folds < 1:
        raise UserError(f"split.folds={config.folds}: at least 1")
    if not 0 <= config.fold < config.folds:
        raise UserError(f"split.fold={config.fold}: choose 0 to {config.folds - 1}")
    scheme = config.scheme
    if scheme == "auto" and dataset.parts:
        scheme = "given"
    if scheme == "auto":
        parts = whole_thirds(dataset, config.fold, config.folds, config.seed)
    else:
        parts = _of_scheme(dataset, config, scheme)
    if not config.test_augmented:
        parts[1:] = [part[dataset.copy_ids[part] == 0] for part in parts[1:]]
    return Split(*(_labeled(dataset, n, p) for n, p in zip(Split._fields, parts, strict=True)))


def _of_scheme(dataset: Items, config, scheme: str) -> list[np.ndarray]:
    """Item indices of the parts that a scheme makes of the units."""
    grouped = config.group_by_source or config.group or scheme in ("rotate", "disjoint", "ordered")
    ids = dataset.group_ids if grouped else _item_ids(dataset)
    if scheme == "given":
        ids = dataset.source_ids
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
    for name, part in zip(Split._fields, parts, strict=True):
        if not len(part):
            raise UserError(f"split: the {name} part is empty ({len(units)} units, {scheme})")
    return parts


def _labeled(dataset: Items, name: str, part: np.ndarray) -> np.ndarray:
    """A part without its items that have no labeled pixel; UserError if none is left."""
    kept = part[dataset.labeled[part]]
    if not len(kept):
        raise UserError(
            f"split: the {name} part has no labeled pixel (all are void, 255): label some of its "
            f"images, or choose another split.seed or split.fold"
        )
    if len(kept) < len(part):
        note(
            f"void {name}",
            f"{len(part) - len(kept)} images of the {name} part have no labeled "
            "pixel and are left out",
        )
    return kept


def given(dataset: Items) -> list[np.ndarray]:
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


def _item_ids(dataset: Items) -> np.ndarray:
    """One id per item; dihedral copies keep the id of their item."""
    return np.cumsum(dataset.copy_ids == 0) - 1
