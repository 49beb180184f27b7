"""Diameters of objects: weighted by area, for classes that have objects."""

import numpy as np
import pytest
from scipy import ndimage

from feedseg.io import object_size

Y, X = np.mgrid[:200, :200]


def discs(*radii: int) -> np.ndarray:
    """A label with discs of class 1, one for each radius."""
    label = np.zeros((200, 200), np.uint8)
    for number, radius in enumerate(radii):
        y, x = divmod(number, 4)
        label[(Y - 25 - 50 * y) ** 2 + (X - 25 - 50 * x) ** 2 <= radius**2] = 1
    return label


def test_the_median_is_that_of_half_of_the_area():
    found = object_size.diameters([discs(*[10] * 8), discs(*[1] * 16)], 2)
    assert found[1].median == pytest.approx(20, abs=0.5) and found[1].low == found[1].median
    spread = object_size.diameters([discs(4, 4, 4, 8, 8, 8, 16, 16, 16)], 2)[1]
    assert spread.low < spread.median == spread.high == pytest.approx(32, abs=0.5)


def test_void_and_other_classes_do_not_count():
    label = discs(*[10] * 8)
    label[100:] = 255
    label[:, :50] = 2
    assert set(object_size.diameters([label, label], 3)) == {1}


def test_strokes_on_a_partly_labeled_image_are_no_objects():
    label = discs(*[10] * 8)
    strokes = np.where(label == 1, label, 255)
    strokes[:, 190:] = 0
    assert object_size.diameters([label], 2) and object_size.diameters([strokes], 2) == {}
    strokes[:100, :190] = label[:100, :190]  # half of it is labeled as a whole
    assert object_size.diameters([strokes, strokes], 2) == object_size.diameters([label], 2)


@pytest.mark.parametrize(
    "label",
    [
        discs(10, 10),  # too few
        np.where((Y % 40 < 3) | (X % 40 < 3), 1, 0),  # a network of membranes
        np.where((Y - X) % 25 < 3, 1, 0),  # lines
        np.ones((200, 200), int),
        np.zeros((200, 200), int),
    ],
)
def test_classes_without_objects(label):
    assert object_size.diameters([label], 2) == {}


def test_touching_objects_still_are_objects():
    label = ndimage.binary_dilation(discs(*[20] * 16), iterations=4).astype(np.uint8)
    label[:, 49:52] = label[98:101] = 0
    assert 1 in object_size.diameters([label], 2)
