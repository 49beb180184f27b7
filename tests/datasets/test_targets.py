"""Joined classes, gray masks and weights between cells, and how they reach the loss."""

import numpy as np
import pytest

from configs import common
from feedseg import datasets
from feedseg.datasets.common.border_weights import border_weights
from feedseg.datasets.common.dataset import VOID, RawData, Section, assemble
from feedseg.datasets.common.targets import prepare
from feedseg.runtime.errors import UserError

W0, SIGMA = 10.0, 2.0


def weight(d1: float, d2: float) -> float:
    return W0 * np.exp(-((d1 + d2) ** 2) / (2 * SIGMA**2))


def test_weights_between_two_cells_by_hand():
    """A row of cells c and gaps: c . . . c c . c; the gap's pixels know both neighbors."""
    label = np.array([[1, 0, 0, 0, 1, 1, 0, 1]])
    found = border_weights(label, 0, W0, SIGMA)
    gap = [weight(1, 3), weight(2, 2), weight(3, 1)]  # the third cell is further
    np.testing.assert_allclose(found[0], [0, *gap, 0, 0, weight(1, 1), 0], rtol=1e-5)
    assert found.dtype == np.float32


def test_weights_take_the_two_nearest_of_three_cells():
    label = np.zeros((9, 9), int)
    label[0, 4] = label[8, 0] = label[8, 8] = 1
    found = border_weights(label, 0, W0, SIGMA)
    assert found[4, 4] == pytest.approx(weight(4, np.hypot(4, 4)), rel=1e-5)
    assert found[8, 4] == pytest.approx(weight(4, 4), rel=1e-5)  # the upper one is 8 away


def test_weights_are_those_of_all_distances():
    """Against the distances of every pixel to every cell, without windows."""
    from scipy import ndimage

    label = (np.random.default_rng(0).random((40, 30)) > 0.97).astype(int)
    cells, count = ndimage.label(label)
    places = [np.argwhere(cells == i) for i in range(1, count + 1)]
    grid = np.argwhere(np.ones_like(label))
    apart = [np.linalg.norm(grid[:, None] - p[None], axis=-1).min(1) for p in places]
    two = np.sort(np.stack(apart), 0)[:2]
    expected = W0 * np.exp(-(two.sum(0) ** 2) / (2 * SIGMA**2)).reshape(label.shape)
    expected[label == 1] = 0
    np.testing.assert_allclose(border_weights(label, 0, W0, SIGMA), expected, atol=1e-6)


@pytest.mark.parametrize("label", [np.zeros((4, 4), int), np.eye(4, dtype=int)[:1], [[1, 1]]])
def test_no_weights_with_fewer_than_two_cells(label):
    assert not border_weights(np.asarray(label), 0, W0, SIGMA).any()


def test_void_is_no_cell():
    label = np.array([[1, 0, VOID, 0, 0]])
    assert not border_weights(label, 0, W0, SIGMA).any()


# Prepared sources -------------------------------------------------------------------------------

NAMES = ("background", "cytoplasm", "nucleus")
COLORS = ((0, 0, 0), (0, 255, 0), (255, 0, 0))
LABEL = np.array([[0, 1, 2, VOID]] * 4, np.uint8)


def source() -> RawData:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    return RawData([Section("one", image, LABEL)], NAMES, COLORS)


def options(**changes):
    config = common.base().data
    config.update(crop_size=16, **changes)
    return config


def test_nothing_asked_for_changes_nothing():
    same = source()
    assert prepare(same, options()) is same


def test_classes_are_joined_and_the_mask_shows_them_as_they_were():
    values = (0.0, 0.5, 1.0)
    made = prepare(source(), options(foreground=("cytoplasm", "nucleus"), mask_values=values))
    section = made.sections[0]
    np.testing.assert_array_equal(section.label[0], [0, 1, 1, VOID])
    np.testing.assert_array_equal(section.maps["mask"][0], [0, 0.5, 1, 0])
    assert made.class_names == ("background", "cytoplasm+nucleus")
    assert len(made.class_colors) == 2


def test_maps_are_cut_copied_and_part_of_the_fingerprint():
    asked = options(mask_values=(0.0, 0.5, 1.0), dihedral_copies=True)
    dataset = assemble("mine", prepare(source(), asked), asked)
    maps = dataset.maps["mask"]
    assert maps.shape == dataset.labels.shape == (8, 16, 16) and maps.dtype == np.float32
    table = np.zeros(256)
    table[:3] = 0.0, 0.5, 1.0
    np.testing.assert_array_equal(maps, table[dataset.labels])
    other = options(mask_values=(0.0, 0.4, 1.0), dihedral_copies=True)
    assert assemble("mine", prepare(source(), other), other).fingerprint() != dataset.fingerprint()


def test_border_weights_come_from_whole_images():
    """The gap between two crops is weighted by the cell in the other one."""
    label = np.zeros((16, 32), np.uint8)
    label[4:12, 10:14] = label[4:12, 18:22] = 1
    image = np.zeros((16, 32, 1), np.uint8)
    asked = options(border_class="background", border_sigma_px=3.0)
    two = RawData([Section("two", image, label)], NAMES[:2], COLORS[:2])
    dataset = assemble("mine", prepare(two, asked), asked)
    assert dataset.maps["border"].shape == (2, 16, 16)
    assert dataset.maps["border"][0, 8, 14] == pytest.approx(10 * np.exp(-25 / 18), rel=1e-5)


MISTAKES = [
    (dict(foreground=("nuclei",)), "data.foreground: no class 'nuclei'; there are background, cyt"),
    (dict(border_class="membrane"), "data.border_class: no class 'membrane'"),
    (dict(border_class="background", border_sigma_px=0.0), "border_sigma_px=0.0: must be above 0"),
    (dict(mask_values=(0.0, 1.0)), "one gray value from 0 to 1 for each of background, cytoplasm"),
    (dict(mask_values=(0.0, 1.0, 1.1)), "one gray value from 0 to 1"),
]


@pytest.mark.parametrize(("changes", "text"), MISTAKES)
def test_mistakes_are_named(changes, text):
    with pytest.raises(UserError, match=text):
        prepare(source(), options(**changes))


def test_loading_prepares():
    config = common.base()
    config.data.update(synthetic_count=3, synthetic_size=32, crop_size=32)
    config.data.border_class = "membrane"
    dataset = datasets.load(config)
    assert set(dataset.maps) == {"border"}
    border = dataset.labels == dataset.class_names.index("membrane")
    assert dataset.maps["border"][border].max() > 1
    assert not dataset.maps["border"][~border].any()
