"""Train, validation and test parts: the counts of the papers, and that parts never share a unit."""

import dataclasses
import itertools

import numpy as np
import pytest

from configs import common
from feedseg.datasets.common import splits
from feedseg.datasets.common.dataset import Dataset
from feedseg.runtime.errors import UserError


def dataset(sources: int, crops: int = 1, copies: int = 1, parts=None) -> Dataset:
    """Items without pixels: every source has `crops` crops and every crop `copies` copies."""
    count = sources * crops * copies
    return Dataset(
        name="made",
        images=np.zeros((count, 1, 1, 1), np.uint8),
        labels=np.zeros((count, 1, 1), np.uint8),
        low=np.zeros(count, np.float32),
        high=np.ones(count, np.float32),
        source_ids=np.repeat(np.arange(sources), crops * copies).astype(np.int32),
        copy_ids=np.tile(np.arange(copies), sources * crops).astype(np.int32),
        item_names=tuple(map(str, range(count))),
        class_names=("a", "b"),
        class_colors=((0, 0, 0), (1, 1, 1)),
        parts=parts or {},
    )


def split(data: Dataset, **changes) -> splits.Split:
    config = common.base().split
    config.update(**changes)
    return splits.split(data, config)


def sizes(parts: splits.Split) -> tuple[int, ...]:
    return tuple(map(len, parts))


def assert_apart(parts: splits.Split) -> None:
    """Sorted indices, and none in two parts."""
    for part in parts:
        assert (np.diff(part) > 0).all()
    assert len(np.unique(np.concatenate(parts))) == sum(sizes(parts))


# thirds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, expected", [(1032, (688, 115, 229)), (120, (80, 13, 27))])
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_thirds_have_the_counts_of_the_paper(count, expected, fold):
    parts = split(dataset(count), fold=fold)
    assert sizes(parts) == expected
    assert_apart(parts)


def test_thirds_hold_every_item_out_once():
    held = [np.concatenate(split(dataset(100), fold=fold)[1:]) for fold in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(100))


def test_thirds_are_permuted_by_the_seed_alone():
    one, again, other = (split(dataset(60), seed=seed) for seed in (0, 0, 1))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.train, other.train)
    assert not np.array_equal(one.train, np.arange(40)), "the order of the files is not random"


# rotate and disjoint ----------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(5))
def test_rotate_as_for_20_sections(fold):
    """Test images 4k to 4k + 4 on the ring, the 3 before them validation, the others training."""
    parts = split(dataset(20), scheme="rotate", folds=5, fold=fold, counts=(12, 3, 5))
    test = {(4 * fold + i) % 20 for i in range(5)}
    val = {(4 * fold - i) % 20 for i in (1, 2, 3)}
    assert (set(parts.test), set(parts.val)) == (test, val)
    assert set(parts.train) == set(range(20)) - test - val


def test_rotate_takes_all_crops_and_copies_of_an_image():
    data = dataset(20, crops=16, copies=8)
    parts = split(data, scheme="rotate", folds=5, fold=2, counts=(12, 3, 5))
    assert sizes(parts) == (12 * 128, 3 * 128, 5 * 128)
    sources = [set(data.source_ids[part]) for part in parts]
    assert all(not a & b for a, b in itertools.combinations(sources, 2))


def test_rotate_uses_no_more_than_its_counts():
    assert sizes(split(dataset(20), scheme="rotate", counts=(5, 3, 5))) == (5, 3, 5)


@pytest.mark.parametrize("sources, count", [(50, 8), (50, 5), (20, 5), (7, 3)])
def test_disjoint_tests_every_image_exactly_once(sources, count):
    tests = []
    for fold in range(count):
        parts = split(dataset(sources), scheme="disjoint", folds=count, fold=fold, counts=(1, 2, 2))
        assert_apart(parts)
        assert sum(sizes(parts)) == sources and len(parts.val) == 2
        assert set(parts.val) == {(parts.test[0] - i) % sources for i in (1, 2)}
        tests.append(parts.test)
    np.testing.assert_array_equal(np.concatenate(tests), np.arange(sources))
    assert {len(test) for test in tests} <= {sources // count, -(-sources // count)}


# random and ordered -----------------------------------------------------------------------------


def test_random_counts():
    options = dict(scheme="random", counts=(192, 48, 80))
    parts = [split(dataset(20, crops=16), fold=fold, **options) for fold in (0, 0, 1)]
    assert sizes(parts[0]) == (192, 48, 80)
    assert_apart(parts[0])
    np.testing.assert_array_equal(parts[0].test, parts[1].test)
    assert not np.array_equal(parts[0].test, parts[2].test)
    few = split(dataset(30), scheme="random", counts=(5, 4, 3))
    assert sizes(few) == (5, 4, 3)
    assert_apart(few)


def test_ordered_follows_the_files():
    parts = split(dataset(10, crops=2), scheme="ordered", counts=(4, 2, 3))
    assert [list(part) for part in parts] == [
        list(range(8)),
        list(range(8, 12)),
        list(range(12, 18)),
    ]


# given ------------------------------------------------------------------------------------------

PARTS = {"train": [0, 2, 3, 5, 6, 7], "test": [1, 4]}


def test_given_parts():
    data = dataset(8, crops=2, parts={**PARTS, "train": [0, 2, 3, 5], "val": [6, 7]})
    parts = split(data, scheme="given")
    assert [sorted(set(data.source_ids[part])) for part in parts] == [[0, 2, 3, 5], [6, 7], [1, 4]]


def test_given_without_validation_takes_every_fifth_training_image():
    parts = split(dataset(8, parts=PARTS), scheme="given")
    assert [list(part) for part in parts] == [[2, 3, 5, 6], [0, 7], [1, 4]]


def test_auto_takes_the_parts_of_the_source_where_there_are_any():
    assert list(split(dataset(8, parts=PARTS), scheme="auto").test) == [1, 4]
    for part, other in zip(split(dataset(30), scheme="auto"), split(dataset(30)), strict=True):
        np.testing.assert_array_equal(part, other)


# copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [dict(), dict(scheme="random", counts=(20, 5, 8))])
def test_copies_of_an_item_stay_together(scheme):
    data = dataset(12, crops=4, copies=8)
    parts = split(data, **scheme)
    assert_apart(parts)
    items = [set(part // 8) for part in parts]
    assert [8 * len(item) for item in items] == list(sizes(parts))
    assert all(not a & b for a, b in itertools.combinations(items, 2))
    sources = [set(data.source_ids[part]) for part in parts]
    assert sources[0] & sources[2], "crops are split here: an image lies in two parts"


@pytest.mark.parametrize("scheme", [dict(), dict(scheme="random", counts=(6, 2, 4))])
def test_group_by_source_keeps_images_whole(scheme):
    data = dataset(12, crops=4, copies=8)
    parts = split(data, group_by_source=True, **scheme)
    sources = [set(data.source_ids[part]) for part in parts]
    assert all(not a & b for a, b in itertools.combinations(sources, 2))
    assert [32 * len(source) for source in sources] == list(sizes(parts))


def test_copies_can_be_left_out_of_validation_and_test():
    data = dataset(12, copies=8)
    whole, parts = split(data), split(data, test_augmented=False)
    np.testing.assert_array_equal(parts.train, whole.train)
    for part, all_copies in zip(parts[1:], whole[1:], strict=True):
        np.testing.assert_array_equal(part, all_copies[all_copies % 8 == 0])
        assert len(part) * 8 == len(all_copies)


# errors -----------------------------------------------------------------------------------------

ROTATE = dict(scheme="rotate", folds=5)
WRONG = [
    (dict(scheme="third"), r"split\.scheme='third': choose from thirds, random, rotate"),
    (dict(fold=3), r"split\.fold=3: choose 0 to 2"),
    (dict(fold=-1), r"split\.fold=-1: choose 0 to 2"),
    (dict(scheme="random", counts=(10, 5, 6)), r"split\.counts=\(10, 5, 6\) do not fit 20"),
    (dict(scheme="random", counts=(10, 0, 5)), r"split\.counts=\(10, 0, 5\) do not fit 20"),
    (dict(scheme="ordered"), r"split\.counts=\(0, 0, 0\) do not fit 20"),
    (dict(counts=(12, 3, 6), **ROTATE), r"split\.counts=\(12, 3, 6\) do not fit 20"),
    (dict(counts=(12, 3, -1), **ROTATE), r"split\.counts=\(12, 3, -1\) do not fit 20"),
    (dict(scheme="given"), r"split\.scheme='given': dataset made fixes no train and test parts"),
    (dict(folds=0), r"split\.folds=0: at least 1"),
    (dict(folds=1), r"split: the train part is empty \(20 units, thirds\)"),
    (dict(folds=20, fold=19), r"split: the val part is empty \(20 units, thirds\)"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message) as error:
        split(dataset(20), **changes)
    assert "\n" not in str(error.value)


# a user's folder ------------------------------------------------------------------------------


def folder(pages: list[int], crops: int = 1, labeled=None) -> Dataset:
    """Files with so many pages each, grouped by file."""
    made = dataset(sum(pages), crops)
    groups = np.repeat(np.repeat(np.cumsum([0, *pages[:-1]]), pages), crops)
    labels = np.zeros_like(made.labels)
    if labeled is not None:
        labels[~np.repeat(labeled, crops)] = 255
    return dataclasses.replace(made, group_ids=groups.astype(np.int32), labels=labels)


def auto(data: Dataset, **changes) -> splits.Split:
    return split(data, scheme="auto", group_by_source=True, **changes)


def groups_of(data: Dataset, parts: splits.Split) -> list[set[int]]:
    return [set(data.group_ids[part].tolist()) for part in parts]


@pytest.mark.parametrize("fold", [0, 1, 2])
@pytest.mark.parametrize("pages", [[8, 8, 8], [8] * 4, [1, 9, 3, 5, 2], [3] * 10, [1] * 3])
def test_the_pages_of_one_file_stay_in_one_part(pages, fold):
    data = folder(pages, crops=2)
    parts = auto(data, fold=fold)
    assert_apart(parts)
    train, val, test = groups_of(data, parts)
    assert not train & val and not train & test and not val & test
    assert sum(map(len, parts)) == 2 * sum(pages)


def test_thirds_of_many_groups_are_those_of_images():
    """A folder of single images is split as before."""
    data = folder([1] * 30)
    for a, b in zip(auto(data), split(dataset(30), group_by_source=True), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("copies", [1, 8])
def test_of_two_files_one_is_trained_on(fold, copies):
    made = dataset(5, 1, copies)
    data = dataclasses.replace(made, group_ids=np.where(made.source_ids < 2, 0, 2))
    parts = auto(data, fold=fold)
    train, val, test = groups_of(data, parts)
    assert len(train) == 1 and val == test and not train & val
    assert_apart(parts)
    assert not set(data.source_ids[parts.val]) & set(data.source_ids[parts.test])


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_one_file_is_split_in_blocks_of_pages(fold):
    parts = auto(folder([12], crops=4), fold=fold)
    assert sizes(parts) == (32, 8, 8)
    assert_apart(parts)
    pages = [np.unique(part // 4) for part in parts[1:]]
    assert all((np.diff(page) == 1).all() for page in pages)


def test_one_image_is_split_in_crops():
    parts = auto(folder([1], crops=4))
    assert sizes(parts) == (2, 1, 1)
    assert_apart(parts)


def test_what_cannot_be_split_says_so():
    for data in (folder([1]), folder([1, 1]), folder([1], crops=2)):
        with pytest.raises(UserError, match="at least 3 are needed"):
            auto(data)


def test_pages_without_a_labeled_pixel_are_in_no_part():
    labeled = np.zeros(100, bool)
    labeled[[3, 20, 41, 60, 77, 90]] = True
    data = folder([1] * 100, labeled=labeled)
    parts = auto(data)
    assert sizes(parts) == (4, 1, 1)
    assert set(np.concatenate(parts).tolist()) == set(np.flatnonzero(labeled).tolist())


def test_a_part_without_a_labeled_pixel_is_refused():
    labeled = np.ones(12, bool)
    labeled[4:6] = False
    parts = {"train": list(range(4)), "val": [4, 5], "test": list(range(6, 12))}
    data = dataclasses.replace(folder([1] * 12, labeled=labeled), parts=parts)
    with pytest.raises(UserError, match="val part has no labeled pixel"):
        auto(data)
    labeled[4] = True
    data = dataclasses.replace(folder([1] * 12, labeled=labeled), parts=parts)
    assert sizes(auto(data)) == (4, 1, 6)
