"""Instances: components of a class, and what a watershed cuts where objects touch."""

import numpy as np
import pytest

from feedseg.inference.outputs.instances import METHODS, instances
from feedseg.inference.outputs.objects import ComponentStats
from feedseg.runtime.errors import UserError


def _discs(count: int = 30, size: int = 200) -> np.ndarray:
    """Discs that overlap by up to 12 % of their distance, bool [size, size]."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size]
    image, placed = np.zeros((size, size), bool), []
    while len(placed) < count:
        cy, cx, r = *generator.uniform(15, size - 15, 2), generator.uniform(9, 13)
        if all(np.hypot(cy - a, cx - b) > 0.88 * (r + s) for a, b, s in placed):
            placed.append((cy, cx, r))
            image |= (y - cy) ** 2 + (x - cx) ** 2 <= r * r
    return image


def test_watershed_parts_touching_discs_and_components_do_not():
    image = _discs().astype(np.uint8)
    parts = instances(image, 1, method="watershed")
    assert instances(image, 1).max() < 27 and parts.max() == 30
    assert parts.dtype == np.int32 and np.array_equal(parts > 0, image > 0)


@pytest.mark.parametrize("scale", [1, 3])
def test_a_long_shape_stays_whole_at_any_size(scale):
    image = np.zeros((40 * scale, 150 * scale), np.uint8)
    for i, x in enumerate(range(10 * scale, 140 * scale)):
        half = scale * (10 + np.sin(i / (8 * scale)))  # wavy, without a real neck
        image[int(20 * scale - half) : int(20 * scale + half), x] = 1
    assert instances(image, 1, method="watershed").max() == 1


def test_a_gap_in_a_membrane_is_closed_by_the_watershed_only():
    image = np.zeros((60, 60), np.uint8)
    image[:, 30] = 1
    image[28:33, 30] = 0
    assert instances(image, boundary_class=1).max() == 1
    cells = instances(image, boundary_class=1, method="watershed")
    assert cells.max() == 2 and (cells[10, 5], cells[50, 55]) == (1, 2)
    assert not cells[image == 1].any()


def test_a_diagonal_membrane_one_pixel_wide_separates():
    image = np.eye(12, dtype=np.uint8)
    for method in METHODS:
        assert instances(image, boundary_class=1, method=method).max() == 2


@pytest.mark.parametrize("connectivity", [4, 8])
def test_watershed_only_cuts_components_and_loses_none(connectivity):
    """However small they are: every component keeps its pixels and at least one id."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        image = (generator.random((24, 31)) < 0.6).astype(np.uint8)
        options = {"connectivity": connectivity, "min_distance_px": 20}
        parts = instances(image, 1, method="watershed", **options)
        whole = instances(image, 1, connectivity=connectivity)
        assert np.array_equal(parts > 0, image > 0)
        pairs = np.unique(np.stack([parts[image > 0], whole[image > 0]]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]


@pytest.mark.parametrize("method", METHODS)
def test_ids_follow_the_first_pixel_without_gaps(method):
    image = _discs().astype(np.uint8)
    ids = instances(image, 1, method=method, min_area_px=250)
    flat = ids.ravel()
    values, first = np.unique(flat, return_index=True)
    assert values.tolist() == list(range(len(values)))
    assert (np.diff(first[1:]) > 0).all()
    assert np.bincount(flat)[1:].min() >= 250 and ids.max() < instances(image, 1).max() + 30


def test_ids_are_the_object_numbers_of_the_table():
    page = np.random.default_rng(8).integers(0, 4, (20, 30)).astype(np.uint8)
    page = np.kron(page, np.ones((4, 4), np.uint8))
    measure = ComponentStats(("background", "cell", "nucleus", "rim"), min_area_px=40)
    measure.add(page)
    measure.end_page()
    for row in measure.objects():
        ids = instances(page, row["class"], min_area_px=40)
        assert np.sum(ids == row["object"]) == row["area_px"]
        assert np.nonzero(ids == row["object"])[1].min() == row["bbox_x_px"]


@pytest.mark.parametrize("method", METHODS)
def test_pages_of_one_class_and_of_none(method):
    everywhere = np.ones((5, 6), np.uint8)
    assert (instances(everywhere, 1, method=method) == 1).all()
    assert not instances(everywhere, 0, method=method).any()
    assert instances(np.ones((1, 1), np.uint8), 1, method=method).tolist() == [[1]]
    assert instances(np.eye(3, dtype=np.uint8), 1, method=method, min_distance_px=1).max() == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_id": 1, "boundary_class": 0},
        {"class_id": 1, "method": "sheds"},
        {"class_id": 1, "connectivity": 5},
        {"class_id": 1, "neck": 1.0},
        {"class_id": 1, "min_distance_px": 0},
    ],
)
def test_instances_refuse_options_that_cannot_be(options):
    with pytest.raises(UserError):
        instances(np.ones((3, 3), np.uint8), **options)


def test_whole_isbi_membranes_leave_the_cells_whole(data_root):
    """On true membranes there is little to cut: nearly as many cells as components."""
    from feedseg.io import images

    truth = images.read_label(data_root / "isbi2012_em" / "train-labels.tif")[0]
    membrane = (truth == 0).astype(np.uint8)
    cells = instances(membrane, boundary_class=1).max()
    assert cells <= instances(membrane, boundary_class=1, method="watershed").max() < 1.12 * cells
