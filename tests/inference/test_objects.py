"""Tables of objects and instance labels: as of the whole image, however its slabs are cut."""

import csv
import tracemalloc

import numpy as np
import pytest
from skimage.measure import label, regionprops

from feedseg.inference.outputs import objects
from feedseg.inference.outputs.object_tables import table_paths, unit_name
from feedseg.inference.outputs.objects import ComponentStats, write_tables
from feedseg.io.calibration import Calibration
from feedseg.runtime.errors import SaveFailed, UserError

NAMES = ("background", "cell", "nucleus", "rim")


def tables_of(stem, measure):
    """The two files, written."""
    paths = table_paths(stem)
    write_tables(paths, measure)
    return paths


def _measured(pages, heights=None, names=NAMES, calibration=None, **options) -> ComponentStats:
    """Pages measured in slabs of the given heights, taken in turn."""
    measure = ComponentStats(names, calibration, **options)
    for page in pages:
        y, turn = 0, 0
        while y < len(page):
            height = len(page) if heights is None else heights[turn % len(heights)]
            measure.add(page[y : y + height])
            y, turn = y + height, turn + 1
        measure.end_page()
    return measure


def _random_labels(generator, classes: int = 4) -> np.ndarray:
    """Noise, coarse noise or a comb, which joins only in its last row."""
    height, width = generator.integers(1, 36, 2)
    noise = generator.integers(0, classes, (height, width)).astype(np.uint8)
    kind = generator.integers(3)
    if kind == 1:
        noise = np.kron(noise, np.ones((2, 3), np.uint8))
    if kind == 2:
        noise[:, ::2], noise[-1] = 1, 1
    return noise


def _reference(page: np.ndarray, class_id: int, connectivity: int) -> list[tuple]:
    """Area, centroid x, y, box x, y, width, height of scikit-image's regions."""
    regions = regionprops(label(page == class_id, connectivity=1 if connectivity == 4 else 2))
    rows = []
    for region in regions:
        (y, x), (top, left, bottom, right) = region.centroid, region.bbox
        rows.append((region.area, x + 0.5, y + 0.5, left, top, right - left, bottom - top))
    return rows


def _row(row: dict) -> tuple:
    keys = "area_px centroid_x_px centroid_y_px bbox_x_px bbox_y_px bbox_width_px bbox_height_px"
    return tuple(row[key] for key in keys.split())


@pytest.mark.parametrize("connectivity", [4, 8])
def test_random_labels_in_random_slabs_give_the_regions_of_the_whole_image(
    connectivity, monkeypatch
):
    generator = np.random.default_rng(connectivity)
    for trial in range(60):
        monkeypatch.setattr(objects, "BLOCK_PX", 2**19 if trial % 2 else 50)
        page = _random_labels(generator)
        heights = generator.integers(1, 9, 5).tolist()
        measure = _measured([page], heights, ignore=(), connectivity=connectivity)
        rows, classes = list(measure.objects()), list(measure.classes())
        for class_id in range(4):
            ours = [row for row in rows if row["class"] == class_id]
            expected = _reference(page, class_id, connectivity)
            assert [row["object"] for row in ours] == list(range(1, len(expected) + 1))
            np.testing.assert_allclose([_row(r) for r in ours], expected or [], rtol=1e-12)
            assert classes[class_id]["components"] == len(expected)
            assert classes[class_id]["area_px"] == np.sum(page == class_id)


def test_the_caller_may_fill_its_slab_anew():
    measure, slab = ComponentStats(NAMES), np.ones((2, 3), np.uint8)
    measure.add(slab)
    slab[:] = 2
    measure.add(slab)
    measure.end_page()
    assert [row["area_px"] for row in measure.objects()] == [6, 6]


def test_a_component_that_closes_many_slabs_later_is_one():
    page = np.zeros((40, 9), np.uint8)
    page[:, [0, 4, 8]], page[-1] = 1, 1
    (row,) = _measured([page], [3]).objects()
    assert _row(row) == (3 * 40 + 6, 4.5, pytest.approx((3 * 800 + 6 * 39.5) / 126), 0, 0, 9, 40)


def test_diagonal_pixels_are_one_component_with_8_and_two_with_4():
    page = np.array([[1, 0], [0, 1]], np.uint8)
    assert len(list(_measured([page], [1]).objects())) == 1
    assert len(list(_measured([page], [1], connectivity=4).objects())) == 2


def test_the_center_of_the_first_pixel_is_one_half_and_calibration_scales_from_the_corner():
    page = np.zeros((4, 6), np.uint8)
    page[0, 0] = 1
    calibration = Calibration(0.5, 0.25, "micron")
    (row,) = _measured([page], calibration=calibration).objects()
    assert (row["centroid_x_px"], row["centroid_y_px"]) == (0.5, 0.5)
    assert (row["centroid_x_um"], row["centroid_y_um"]) == (0.125, 0.25)
    assert row["area_um2"] == 0.125


@pytest.mark.parametrize(
    ("y", "x", "touches"), [(2, 2, 0), (0, 2, 1), (4, 2, 1), (2, 0, 1), (2, 6, 1)]
)
def test_touching_the_border_is_told_for_each_side(y, x, touches):
    page = np.zeros((5, 7), np.uint8)
    page[y, x] = 1
    (row,) = _measured([page], [2]).objects()
    assert row["touches_border"] == touches


def test_class_table_has_areas_fractions_and_what_was_left_out():
    page = np.zeros((4, 5), np.uint8)
    page[0, :2], page[2, 4], page[3, 0] = 1, 1, 2
    measure = _measured([page], min_area_px=2, calibration=Calibration(2, 3, "nm"))
    background, cell, nucleus, rim = measure.classes()
    assert background["area_px"] == 16 and background["components"] == 1
    assert cell == {
        "page": 1,
        "class": 1,
        "class_name": "cell",
        "area_px": 3,
        "area_nm2": 18,
        "fraction": 3 / 20,
        "components": 2,
        "components_too_small": 1,
    }
    assert (nucleus["components"], nucleus["components_too_small"]) == (1, 1)
    assert (rim["area_px"], rim["components"]) == (0, 0)
    assert [row["area_px"] for row in measure.objects()] == [2]


def test_background_is_not_listed_unless_asked_and_other_classes_can_be_ignored():
    page = np.array([[0, 1, 2]], np.uint8)

    def listed(**options):
        return [row["class"] for row in _measured([page], **options).objects()]

    assert listed() == [1, 2]
    assert listed(ignore=()) == [0, 1, 2]
    assert listed(ignore=(0, 2)) == [1]
    assert listed(names=("cytoplasm", "cell", "nucleus")) == [0, 1, 2]


def test_pages_count_from_one_and_do_not_mix():
    first, second = np.ones((3, 4), np.uint8), np.ones((2, 6), np.uint8)
    rows = list(_measured([first, second], [1]).objects())
    found = [(row["page"], row["object"], row["area_px"]) for row in rows]
    assert found == [(1, 1, 12), (2, 1, 12)]
    assert rows[1]["bbox_y_px"] == 0


def test_tables_are_csv_with_header_and_decimal_points(tmp_path):
    names = ("background", 'Zelle, "rund" µ')
    page = np.zeros((3, 3), np.uint8)
    page[:2, 0] = page[0, 1] = 1
    paths = tables_of(tmp_path / "new" / "a.b", _measured([page], names=names))
    assert [path.name for path in paths] == ["a.b_classes.csv", "a.b_objects.csv"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(p.name for p in paths)
    assert b"\r" not in paths[1].read_bytes()
    with paths[1].open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["class_name"] == names[1] and row["area_px"] == "3"
    assert row["centroid_x_px"] == "0.833333333333" and row["touches_border"] == "1"
    with paths[0].open(encoding="utf-8", newline="") as file:
        fractions = [row["fraction"] for row in csv.DictReader(file)]
    assert fractions == ["0.666666666667", "0.333333333333"]


def test_an_image_without_objects_still_has_a_header(tmp_path):
    calibration = Calibration(1, 1, "nm")
    page = np.zeros((2, 2), np.uint8)
    _, empty = tables_of(tmp_path / "a", _measured([page], calibration=calibration))
    _, full = tables_of(tmp_path / "b", _measured([page + 1], calibration=calibration))
    (header,) = empty.read_text().splitlines()
    assert header == full.read_text().splitlines()[0] and "area_nm2,centroid_x_px" in header


def test_a_table_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveFailed, match=r"a_objects\.csv: cannot be written"):
        tables_of(tmp_path / "file" / "a", _measured([np.ones((2, 2), np.uint8)]))


def test_a_failure_while_writing_keeps_the_old_table(tmp_path, monkeypatch):
    measure = _measured([np.ones((2, 2), np.uint8)])
    _, path = tables_of(tmp_path / "a", measure)
    before = path.read_text()

    def broken(self):
        yield next(ComponentStats.objects(measure))
        raise OSError(28, "No space left on device")

    failing = type("Failing", (ComponentStats,), {"objects": broken})(NAMES)
    failing._pages = measure._pages
    with pytest.raises(SaveFailed, match="No space left"):
        tables_of(tmp_path / "a", failing)
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("unit", "plain"),
    [
        ("micron", "um"),
        ("µm", "um"),
        ("μm", "um"),
        ("um", "um"),
        ("nm", "nm"),
        ("Å", "angstrom"),
        ("inch", "inch"),
        ("1/mm", "1_mm"),
        ("毫米", "unit"),
    ],
)
def test_units_in_column_names_are_ascii(unit, plain):
    assert unit_name(unit) == plain


@pytest.mark.parametrize(
    "options", [{"connectivity": 6}, {"ignore": (4,)}, {"ignore": (-1,)}, {"min_area_px": -1}]
)
def test_options_that_cannot_be_are_the_users_error(options):
    with pytest.raises(UserError):
        ComponentStats(NAMES, **options)


def test_rows_that_are_no_label_rows_of_the_page_are_refused():
    measure = ComponentStats(NAMES)
    with pytest.raises(ValueError, match="without rows"):
        measure.end_page()
    measure.add(np.zeros((2, 3), np.uint8))
    for rows in (np.zeros((1, 4), np.uint8), np.zeros((1, 3), int), np.full((1, 3), 4, np.uint8)):
        with pytest.raises(ValueError):
            measure.add(rows)
    with pytest.raises(ValueError, match="end_page"):
        list(measure.objects())


def test_memory_does_not_grow_with_the_height_of_the_image(monkeypatch):
    """Noise, which has the most runs there can be; a slab has 8 blocks."""
    monkeypatch.setattr(objects, "BLOCK_PX", 2**14)
    slab = np.random.default_rng(0).integers(0, 4, (128, 1024)).astype(np.uint8)
    measure = ComponentStats(NAMES, min_area_px=10**9)
    measure.add(slab)
    peaks = []
    tracemalloc.start()
    for slabs in (1, 8):
        tracemalloc.reset_peak()
        for _ in range(slabs):
            measure.add(slab)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[0] < 400 * 2**14 and peaks[1] < 1.1 * peaks[0]
