"""Drawn shapes: which pixels they fill, and how the files of four programs are read."""

import base64
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from skimage.draw import polygon2mask

from feedseg.io.annotations import reading, rle, shapes
from feedseg.io.annotations.imagej_roi import class_names
from feedseg.io.annotations.shapes import Shape, box, ellipse, ring, stroke
from feedseg.runtime.errors import UserError

RNG = np.random.default_rng(0)
SQUARE = [[3, 4], [13, 4], [13, 14], [3, 14]]


def filled(shape: Shape, height: int = 20, width: int = 20) -> np.ndarray:
    """Pixels of a shape in an image, bool."""
    image = np.zeros((height, width), bool)
    for top, left, mask in shape.fill(height, width):
        image[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask
    return image


def inside(*rings, height: int = 20, width: int = 20) -> np.ndarray:
    return filled(Shape("", (), (tuple(map(ring, rings)),)), height, width)


# Filling ------------------------------------------------------------------------------------------


def test_a_rectangle_of_10_by_10_px_fills_100():
    expected = np.zeros((20, 20), bool)
    expected[4:14, 3:13] = True
    np.testing.assert_array_equal(inside(SQUARE), expected)
    np.testing.assert_array_equal(inside(SQUARE[::-1]), expected)


def test_centers_on_edges_belong_to_one_of_two_neighbors():
    left, right = inside(box(2.5, 2.5, 6.5, 8.5)), inside(box(6.5, 2.5, 9.5, 8.5))
    assert not (left & right).any()
    np.testing.assert_array_equal(left | right, inside(box(2.5, 2.5, 9.5, 8.5)))
    assert left[2, 2] and not left[8].any() and not left[:, 6].any() and right[2, 6]


def test_random_polygons_fill_what_scikit_image_fills():
    for _ in range(50):
        corners = RNG.uniform(-10, 50, (RNG.integers(3, 12), 2))
        expected = polygon2mask((40, 45), corners[:, ::-1] - 0.5)
        np.testing.assert_array_equal(inside(corners, height=40, width=45), expected)


def test_many_edges_are_filled_in_pieces(monkeypatch):
    corners = RNG.uniform(-10, 30, (40, 2))
    whole = inside(corners)
    monkeypatch.setattr(shapes, "_CROSSINGS", 30)
    np.testing.assert_array_equal(inside(corners), whole)


def test_a_ring_inside_is_a_hole():
    mask = inside(SQUARE, box(5, 6, 8, 9))
    assert mask.sum() == 100 - 9 and not mask[6:9, 5:8].any()


@pytest.mark.parametrize(
    ("corners", "count"),
    [(box(-5, -5, 4, 3), 12), (box(18, 18, 99, 99), 4), (box(40, 3, 50, 9), 0)],
)
def test_what_lies_outside_is_clipped(corners, count):
    assert inside(corners).sum() == count


def test_a_circle_fills_the_pixels_within_its_radius():
    y, x = np.mgrid[:20, :20] + 0.5
    distance = np.hypot(x - 9.7, y - 10.2) - 6
    clear = np.abs(distance) > 0.006
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(inside(ellipse(9.7, 10.2, 6, 6))[clear], (distance < 0)[clear])


def test_a_line_fills_the_pixels_within_half_its_width():
    y, x = np.mgrid[:20, :20] + 0.5
    along = np.clip(((x - 3.3) + (y - 4.1)) / 2, 0, 9)  # from (3.3, 4.1), 9 px right and down
    distance = np.hypot(x - 3.3 - along, y - 4.1 - along)
    line = Shape("", (), stroke(ring([[3.3, 4.1], [12.3, 13.1]], 2), 4))
    clear = np.abs(distance - 2) > 0.006
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(filled(line)[clear], (distance < 2)[clear])
    thin = filled(Shape("", (), stroke(ring([[2.5, 2.5], [12.5, 2.5]], 2), 1)))
    assert thin[2, 2:13].all() and thin.sum() == 11


@pytest.mark.parametrize(
    "points",
    [
        [[0, 0], [1, 1]],
        [[0, 0], [1, float("nan")], [2, 2]],
        [[0, 0], [1, float("inf")], [2, 2]],
        [[0, 0], [1, 1e300], [2, 2]],
        [[0, 0], [1, 10**400], [2, 2]],
        [[0, 0], [1], [2, 2]],
        [["0", "0"], ["1", "0"], ["2", "2"]],
        [[True, False], [True, True], [False, True]],
        [None, None, None],
        "abc",
        [],
    ],
)
def test_corners_that_are_none(points):
    with pytest.raises(ValueError, match=r"coordinate|corners"):
        ring(points)


# Run lengths --------------------------------------------------------------------------------------


def packed(runs: list[int]) -> str:
    """Compressed run lengths, written anew from their description."""
    text = ""
    for index, run in enumerate(runs):
        number, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def runs_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def unpacked(counts, height: int, width: int) -> np.ndarray:
    return rle.decode(rle.parse(counts, height, width), height, width)


def test_run_lengths_give_the_mask():
    assert unpacked([1, 2, 3], 2, 3).tolist() == [[False, True, False], [True, False, False]]
    for _ in range(20):
        mask = RNG.random((37, 91)) < RNG.random()
        runs = runs_of(mask)
        np.testing.assert_array_equal(unpacked(runs, 37, 91), mask)
        np.testing.assert_array_equal(unpacked(packed(runs), 37, 91), mask)


def test_run_lengths_of_a_known_text():
    """Of cocoapi: a mask of 9 x 9 px whose pixels 20 to 59, column by column, are set."""
    assert packed([20, 40, 21]) == "d0X1e0"
    assert unpacked("d0X1e0", 9, 9).T.ravel().nonzero()[0].tolist() == list(range(20, 60))


@pytest.mark.parametrize(
    "counts", [[1, 2], [-1, 7], [1.5, 4.5], "e", "P" * 40, "d0é", [10**30], "0"]
)
def test_damaged_run_lengths(counts):
    with pytest.raises(ValueError, match=r"run length|sign"):
        rle.parse(counts, 2, 3)


# Files --------------------------------------------------------------------------------------------


def roi(name: str = "nucleus", points=SQUARE, **fields) -> ImagejRoi:
    made = ImagejRoi.frompoints(np.asarray(points), name=name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def one(path: Path) -> Shape:
    (found,) = reading.read(path)
    (shape,) = found.shapes
    return shape


def write_json(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_imagej_polygons_rectangles_and_ovals(tmp_path):
    path = tmp_path / "a.roi"
    path.write_bytes(roi().tobytes())
    shape = one(path)
    assert shape.names == ("nucleus",) and filled(shape).sum() == 100
    bounds = dict(left=3, top=4, right=13, bottom=14)
    path.write_bytes(ImagejRoi(roitype=ROI_TYPE.RECT, name="x", **bounds).tobytes())
    np.testing.assert_array_equal(filled(one(path)), inside(SQUARE))
    path.write_bytes(ImagejRoi(roitype=ROI_TYPE.OVAL, name="x", **bounds).tobytes())
    np.testing.assert_array_equal(filled(one(path)), inside(ellipse(8, 9, 5, 5)))


def test_imagej_composites_have_holes(tmp_path):
    path = [0.0, 3, 4, 1, 13, 4, 1, 13, 14, 1, 3, 14, 4, 0, 5, 6, 1, 8, 6, 1, 8, 9, 1, 5, 9, 4]
    made = ImagejRoi(
        roitype=ROI_TYPE.RECT, name="cell", shape_roi_size=len(path), left=3, top=4, right=13,
        bottom=14, multi_coordinates=np.array(path, np.float32),
    )  # fmt: skip
    (tmp_path / "a.roi").write_bytes(made.tobytes())
    assert filled(one(tmp_path / "a.roi")).sum() == 100 - 9


def test_imagej_lines_count_the_centers_of_pixels(tmp_path):
    line = ImagejRoi(
        roitype=ROI_TYPE.LINE, name="x", x1=2, y1=5, x2=12, y2=5, stroke_width=3,
        options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION,
    )  # fmt: skip
    (tmp_path / "a.roi").write_bytes(line.tobytes())
    mask = filled(one(tmp_path / "a.roi"))
    assert mask[4:7, 2:13].all() and not mask[[3, 7]].any()


def test_imagej_archives_keep_their_order_groups_and_places(tmp_path):
    made = [
        roi("nucleus-2", group=2),
        roi("0012-0107-0093", position=3),
        roi("x", z_position=2, t_position=1),
        ImagejRoi(roitype=ROI_TYPE.POINT, name="p"),
    ]
    made[3] = roi("p", roitype=ROI_TYPE.POINT)
    with zipfile.ZipFile(tmp_path / "RoiSet.zip", "w") as archive:
        for index, each in enumerate(made):
            archive.writestr(f"{9 - index}.roi", each.tobytes())
        archive.writestr("readme.txt", "no region")
    (found,) = reading.read(tmp_path / "RoiSet.zip")
    assert [shape.names for shape in found.shapes] == [("nucleus-2", "nucleus"), (), ("x",)]
    assert [(shape.group, shape.page) for shape in found.shapes] == [(2, 0), (0, 3), (0, 2)]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("nucleus", ("nucleus",)),
        ("nucleus_17", ("nucleus_17", "nucleus")),
        ("class1", ("class1",)),
        ("0012-0107", ()),
        ("0002-0012-0107-1", ()),
        ("", ()),
        ("-1", ("-1",)),
    ],
)
def test_names_of_regions(name, names):
    assert class_names(name) == names


def feature(geometry: str, coordinates, classification=None) -> dict:
    return {
        "type": "Feature",
        "geometry": {"type": geometry, "coordinates": coordinates},
        "properties": {"classification": classification} if classification else {},
    }


def test_qupath(tmp_path):
    hole = [[5, 6], [8, 6], [8, 9], [5, 9], [5, 6]]
    content = [
        feature("Polygon", [[*SQUARE, SQUARE[0]], hole], {"name": "Tumor"}),
        feature("MultiPolygon", [[SQUARE], [box(15, 15, 17, 17).tolist()]], "Stroma"),
        feature("LineString", [[2.5, 2.5], [12.5, 2.5]]),
        feature("Point", [1, 2], {"name": "Tumor"}),
    ]
    for form in (content, {"type": "FeatureCollection", "features": content}):
        (found,) = reading.read(write_json(tmp_path / "a.geojson", form))
        assert [each.names for each in found.shapes] == [("Tumor",), ("Stroma",), ()]
        assert [filled(each).sum() for each in found.shapes] == [91, 104, 11]


def coco(**changes) -> dict:
    flat = [value for corner in SQUARE for value in corner]
    mask = inside(SQUARE, height=20, width=30)
    runs = runs_of(mask)
    texts = [[flat, [15, 15, 17, 15, 17, 17]], {"size": [20, 30], "counts": runs}]
    texts += [{"size": [20, 30], "counts": packed(runs)}]
    content = {
        "images": [{"id": 7, "file_name": "a.tif", "height": 20, "width": 30}],
        "categories": [{"id": 9, "name": "wall"}, {"id": 2, "name": "nucleus"}],
        "annotations": [
            {"image_id": 7, "category_id": (9, 2, 2)[index], "segmentation": text}
            for index, text in enumerate(texts)
        ],
    }
    return content | changes


def test_coco(tmp_path):
    (found,) = reading.read(write_json(tmp_path / "a.json", coco()))
    assert (found.image, found.size, found.order) == ("a.tif", (20, 30), ("nucleus", "wall"))
    assert [each.names for each in found.shapes] == [("wall",), ("nucleus",), ("nucleus",)]
    assert filled(found.shapes[0], 20, 30).sum() == 103
    for each in found.shapes[1:]:
        np.testing.assert_array_equal(filled(each, 20, 30), inside(SQUARE, height=20, width=30))


def labelme(*made: dict, **changes) -> dict:
    return {"shapes": list(made), "imagePath": "..\\a.png", "imageHeight": 20, "imageWidth": 20} | (
        changes
    )


def test_labelme(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(stream, "PNG")
    drawn = [("polygon", SQUARE), ("rectangle", [[13, 14], [3, 4]]), ("circle", [[9, 9], [12, 13]])]
    drawn += [
        ("linestrip", [[2.5, 2.5], [9.5, 2.5]]),
        ("mask", [[-2, 5], [1, 8]]),
        ("point", [[1, 1]]),
    ]
    text = base64.b64encode(stream.getvalue()).decode()
    made = [{"label": k, "shape_type": k, "points": p, "mask": text} for k, p in drawn]
    (found,) = reading.read(write_json(tmp_path / "a.json", labelme(*made)))
    assert (found.image, found.size) == ("..\\a.png", (20, 20))
    counts = {each.names[0]: int(filled(each).sum()) for each in found.shapes}
    circle = int(inside(ellipse(9, 9, 5, 5)).sum())
    assert counts == dict(polygon=100, rectangle=100, circle=circle, linestrip=8, mask=2)


def test_other_json_is_none(tmp_path):
    assert reading.read(write_json(tmp_path / "dataset.json", {"labels": {"a": 0}})) == []
    assert reading.read(write_json(tmp_path / "list.json", [1, 2])) == []


# Damage -------------------------------------------------------------------------------------------


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        reading.read(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and caught.value.exit_code == 2
    for word in words:
        assert word in text, text


BAD_COCO = [
    (
        coco(annotations=[{"image_id": 7, "category_id": 2}]),
        "annotations[0].segmentation is missing",
    ),
    (coco(images=[]), "annotations[0].image_id=7"),
    (coco(categories=[]), "annotations[0].category_id=9"),
    (coco(images=coco()["images"] * 2), "an id is given twice"),
    (coco(images="x"), "images='x'"),
]
BAD_COCO += [
    (coco(annotations=[{"image_id": 7, "category_id": 2, "segmentation": text}]), words)
    for text, words in [
        ([], "a box alone is no mask"),
        ([[1, 2, 3]], "x, y, x, y"),
        ([[1, 2, 3, 4]], "2 corners"),
        ([[1, 2, 3, "4", 5, 6]], "no list of pairs"),
        ([[]], "coordinates"),
        ([[1, 2, float("nan"), 4, 5, 6]], "NaN"),
        ({"size": [30, 20], "counts": [600]}, "size 30 x 20, its image is 20 x 30"),
        ({"size": [20, 30], "counts": [1]}, "cover 1 of 20 x 30"),
        ({"size": [10**9, 10**9], "counts": [1]}, "size"),
        ({"size": [20, 30], "counts": {}}, "neither"),
        ({"size": [20], "counts": [1]}, "size"),
    ]
]


@pytest.mark.parametrize(("content", "words"), BAD_COCO)
def test_damaged_coco(tmp_path, content, words):
    refused(write_json(tmp_path / "a.json", content), words)


def test_damaged_geojson(tmp_path):
    path = tmp_path / "a.geojson"
    for geometry, coordinates in (("Polygon", []), ("Polygon", [[[1, 2]]]), ("Curve", [1])):
        refused(write_json(path, [feature(geometry, coordinates)]), "features[0]")
    refused(write_json(path, [feature("Polygon", [SQUARE], {"name": 3})]), "classification.name")
    refused(write_json(path, {"type": "FeatureCollection", "features": [3]}), "features")


def test_damaged_labelme(tmp_path):
    path = tmp_path / "a.json"
    refused(write_json(path, labelme({"points": SQUARE})), "shapes[0].label is missing")
    for kind, points in (("circle", SQUARE), ("cuboid", SQUARE), ("polygon", SQUARE[:2])):
        shape = {"label": "n", "shape_type": kind, "points": points}
        refused(write_json(path, labelme(shape)), "shapes[0] (n)")
    for text in (None, "!", base64.b64encode(b"nothing").decode()):
        shape = {"label": "n", "shape_type": "mask", "points": [[0, 0]], "mask": text}
        refused(write_json(path, labelme(shape)), "its mask is no")


def test_masks_are_decoded_where_they_are_filled(tmp_path):
    """So a file of many large ones needs the memory of one, and those that are too large none."""
    huge = coco(images=[{"id": 7, "file_name": "a.tif"}], annotations=[])
    runs = {"size": [10**8, 10**8], "counts": [0, 10**16]}
    huge["annotations"] = [{"image_id": 7, "category_id": 2, "segmentation": runs}] * 3
    (found,) = reading.read(write_json(tmp_path / "a.json", huge))
    assert found.size == (10**8, 10**8)
    with pytest.raises(ValueError, match="more than the image"):
        filled(found.shapes[0])
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 2, (9, 9), np.uint8)).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()[:60]).decode()
    shape = {"label": "n", "shape_type": "mask", "points": [[0, 0]], "mask": text}
    (found,) = reading.read(write_json(tmp_path / "b.json", labelme(shape)))
    with pytest.raises(ValueError, match="no PNG picture"):
        filled(found.shapes[0])


def test_damaged_files(tmp_path):
    path = tmp_path / "a.json"
    for data in (b"{", b"\xff", b"3", b"[" * 10**6, b'{"images": ' + b"9" * 5000 + b"}"):
        path.write_bytes(data)
        refused(path, "JSON")
    for name in ("a.roi", "a.zip"):
        (tmp_path / name).write_bytes(b"nothing")
        refused(tmp_path / name, "save it again")


def test_a_damaged_name_is_refused(tmp_path, capfd):
    """Not read as a region without one, which would be of another class."""
    (tmp_path / "a.roi").write_bytes(roi("nucleus").tobytes()[:-4])
    refused(tmp_path / "a.roi", "name exceeds", "save it again")
    assert not capfd.readouterr().err


def test_every_damage_of_a_region_is_one_line(tmp_path):
    whole = roi("nucleus-2", subtype=ROI_SUBTYPE.UNDEFINED).tobytes()
    for _ in range(300):
        data = bytearray(whole)
        data[RNG.integers(4, len(data))] = RNG.integers(256)
        (tmp_path / "a.roi").write_bytes(bytes(data[: RNG.integers(1, len(data) + 1)]))
        try:
            reading.read(tmp_path / "a.roi")
        except UserError as error:
            assert str(error).startswith(str(tmp_path / "a.roi")) and "\n" not in str(error)


def test_files_without_areas_hold_no_shapes(tmp_path):
    """An image is not all background because somebody marked points on it."""
    (tmp_path / "a.roi").write_bytes(roi(roitype=ROI_TYPE.POINT).tobytes())
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.tif", "no region")
    write_json(tmp_path / "b.geojson", [feature("Point", [1, 2])])
    point = {"label": "n", "shape_type": "point", "points": [[0, 0]]}
    write_json(tmp_path / "c.json", labelme(point))
    for name in ("a.roi", "images.zip", "b.geojson", "c.json"):
        assert reading.read(tmp_path / name) == []
    (found,) = reading.read(write_json(tmp_path / "d.json", labelme()))  # nothing was found on it
    assert found.shapes == []


def test_lines_that_nobody_draws(tmp_path):
    for width in (1e30, float("inf")):
        line = roi(points=SQUARE, roitype=ROI_TYPE.POLYLINE, float_stroke_width=width)
        (tmp_path / "a.roi").write_bytes(line.tobytes())
        refused(tmp_path / "a.roi", "px wide")


def test_archives_that_unpack_to_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(100 * 2**20))
    refused(tmp_path / "a.zip", "unpacks to more than")
