"""`feedseg check --convert`: drawn shapes become a folder to train on, as a whole or not at all."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from roifile import ImagejRoi

from configs import common
from feedseg import cli
from feedseg.datasets import folder
from feedseg.datasets.tools.convert import convert
from feedseg.io.images import read_label
from feedseg.runtime import notes
from feedseg.runtime.errors import UserError, guarded

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 24, 32


def image(path: Path, shape=(HEIGHT, WIDTH), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, RNG.integers(0, 256, shape).astype(np.uint8), **options)
    return path


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def rois(path: Path, **boxes) -> Path:
    """A RoiSet with one polygon per class and box; `a_1` is a second one of `a`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, corners in boxes.items():
            made = ImagejRoi.frompoints(np.array(box(*corners)), name=name)
            archive.writestr(f"{name}.roi", made.tobytes())
    return path


def geojson(path: Path, *named) -> Path:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [corners]},
            "properties": {"classification": {"name": name}} if name else {},
        }
        for name, corners in named
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def labelme(path: Path, name: str, corners, stated: str, **changes) -> Path:
    content = {"shapes": [{"label": name, "points": corners}], "imagePath": stated}
    path.write_text(json.dumps(content | changes))
    return path


def coco(path: Path, names: list[str], **files) -> Path:
    """One box of class 5, `wall`, on each image."""
    images = [
        {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for number, name in enumerate(files)
    ]
    outlines = [
        {"image_id": number, "category_id": 5, "segmentation": [np.ravel(corners).tolist()]}
        for number, corners in enumerate(files.values())
    ]
    categories = [{"id": 5 + number, "name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": outlines, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def label(out: Path, name: str) -> np.ndarray:
    return read_label(out / "labels" / f"{name}.tif")[0]


def refused(data: Path, words: str, **options) -> None:
    """One line that names what is wrong; nothing is left."""
    before = sorted(data.parent.iterdir())
    with pytest.raises(UserError) as caught:
        convert(data, data.parent / "out", progress=False, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value
    assert caught.value.exit_code == 2 and sorted(data.parent.iterdir()) == before


def test_rois_become_class_masks(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    picture = image(data / "a.tif", imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    rois(
        data / "a_RoiSet.zip", nucleus=(2, 3, 12, 13), wall=(20, 0, 40, 4), nucleus_1=(0, 20, 2, 22)
    )
    image(data / "b.tif")
    convert(data, out, progress=False)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:13, 2:12], expected[20:22, 0:2], expected[0:4, 20:] = 1, 1, 2
    np.testing.assert_array_equal(label(out, "a"), expected)
    assert json.loads((out / "dataset.json").read_text())["labels"] == dict(
        background=0, nucleus=1, wall=2
    )
    with tifffile.TiffFile(out / "labels" / "a.tif") as file:
        assert file.is_imagej and "class 1: nucleus" in file.imagej_metadata["Info"]
        assert file.imagej_metadata["unit"] in ("um", "µm", "\\u00B5m")
        assert file.pages[0].dtype == np.uint8 and file.pages[0].colormap is not None
    assert (out / "images" / "a.tif").read_bytes() == picture.read_bytes()
    text = capsys.readouterr().out
    assert "3 shapes on 1 image(s)" in text and "annotations left out: b.tif" in text
    assert "a_RoiSet.zip: ROI wall" in text and "clipped" in text


def test_later_shapes_cover_earlier_ones(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "a.tif")
    corners = dict(cell=(0, 0, 10, 10), nucleus=(5, 5, 15, 15))
    rois(data / "a.zip", **corners)
    convert(data, out, progress=False)
    assert label(out, "a")[5:10, 5:10].tolist() == [[2] * 5] * 5
    assert "25 px are covered by a later shape" in capsys.readouterr().out
    rois(data / "a.zip", **dict(reversed(corners.items())))
    convert(data, tmp_path / "other", progress=False)
    assert label(tmp_path / "other", "a")[5:10, 5:10].tolist() == [[1] * 5] * 5


def test_classes_in_the_order_that_is_given(tmp_path):
    data = tmp_path / "data"
    image(data / "a.tif")
    geojson(data / "a.geojson", ("Wall", box(0, 0, 4, 4)), ("Ignore*", box(8, 0, 9, 1)))
    convert(data, tmp_path / "1", classes=("sky", "nucleus", "Wall"), progress=False)
    assert np.unique(label(tmp_path / "1", "a")).tolist() == [0, 2, 255]
    described = folder.describe(tmp_path / "1")
    assert described == folder.Description(("sky", "nucleus", "Wall"), 255)
    refused(data, "features[0]: class 'Wall' is none of a, wall, b", classes=("a", "wall", "b"))
    refused(data, "class names repeat", classes=("Wall", "Wall"))


@pytest.mark.parametrize("classes", [(), ("background", "wall")])
def test_names_that_other_programs_have_for_background_and_ignored(tmp_path, classes):
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "a.tif")
    named = ["wall", "_background_", "Background", "__ignore__", "Ignore*"]
    corners = [box(2 * n, 0, 2 * n + 2, 1) for n in range(5)]
    geojson(data / "a.geojson", *zip(named, corners, strict=True))
    convert(data, out, classes=classes, unlabeled="void", progress=False)
    assert folder.describe(out) == folder.Description(("background", "wall"), 255)
    assert label(out, "a")[0, :10].tolist() == [1, 1, 0, 0, 0, 0, 255, 255, 255, 255]


def test_without_links_images_are_copied(tmp_path, monkeypatch):
    data, out = tmp_path / "data", tmp_path / "out"
    picture = image(data / "a.tif")
    rois(data / "a.zip", wall=(0, 0, 4, 4))
    convert(data, tmp_path / "linked", progress=False)
    assert (tmp_path / "linked" / "images" / "a.tif").samefile(picture)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    convert(data, out, progress=False)
    copy = out / "images" / "a.tif"
    assert copy.read_bytes() == picture.read_bytes() and not copy.samefile(picture)


def test_shapes_without_a_class(tmp_path):
    data = tmp_path / "data"
    image(data / "a.tif")
    geojson(data / "a.tif.geojson", ("", box(0, 0, 4, 4)))
    convert(data, tmp_path / "1", progress=False)
    assert folder.describe(tmp_path / "1").names == ("background", "object")
    convert(data, tmp_path / "2", classes=("sky", "cell"), progress=False)
    np.testing.assert_array_equal(label(tmp_path / "1", "a"), label(tmp_path / "2", "a"))
    refused(data, "features[0]: has no class; name it one of a, b, c", classes=("a", "b", "c"))


def test_groups_of_rois_number_the_classes(tmp_path):
    data = tmp_path / "data"
    image(data / "a.tif")
    for number in (1, 2):
        made = ImagejRoi.frompoints(np.array(box(number, 0, number + 1, 4)), name="0001-0002")
        made.group = number
        (data / "a").mkdir(exist_ok=True)
        (data / "a" / f"{number}.roi").write_bytes(made.tobytes())
    convert(data, tmp_path / "1", progress=False)
    assert folder.describe(tmp_path / "1").names == ("background", "group 1", "group 2")
    convert(data, tmp_path / "2", classes=("x", "y", "z"), progress=False)
    for out in ("1", "2"):
        assert label(tmp_path / out, "a")[0, :4].tolist() == [0, 1, 2, 0]


def test_scribbles(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    for name in "abc":
        image(data / f"{name}.tif")
        rois(data / f"{name}.zip", wall=(0, 0, 3, 1), background=(8, 0, 9, 5))
    convert(data, out, unlabeled="void", progress=False)
    assert folder.describe(out) == folder.Description(("background", "wall"), 255)
    values, counts = np.unique(label(out, "a"), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        0: 5,
        1: 3,
        255: HEIGHT * WIDTH - 8,
    }
    options = common.base().data
    options.update(name="folder", axes="", label_map="", classes=())
    raw = folder.load(out, options)
    assert raw.class_names == ("background", "wall") and len(raw.sections) == 3


def test_coco_in_parts_with_folders_of_images(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    for part in ("train", "valid", "test"):
        for name in ("day1/a.tif", "day2/a.tif"):
            image(data / part / "images" / name)
        files = {"day1/a.tif": box(0, 0, 4, 4), "day2/a.tif": box(0, 0, 2, 2)}
        coco(data / part / "annotations" / "instances.json", ["wall", "unused"], **files)
    convert(data, out, progress=False)
    assert folder.describe(out).names == ("background", "wall")
    for part in ("train", "val", "test"):
        for day, count in ((1, 16), (2, 4)):
            assert (read_label(out / part / "labels" / f"day{day}" / "a.tif") == 1).sum() == count
    assert cli.run(["check", str(out), "--output", str(tmp_path / "report")]) == 0


def test_labelme_states_its_image(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "images" / "a.tif")
    image(data / "images" / "b.tif")
    (data / "json").mkdir()
    labelme(data / "json" / "b.json", "wall", box(0, 0, 4, 4), "..\\images\\a.tif")
    convert(data, out, progress=False)
    assert (label(out, "a") == 1).sum() == 16 and not (out / "labels" / "b.tif").exists()


def test_shapes_on_the_pages_of_a_stack(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "s.tif", (3, HEIGHT, WIDTH), imagej=True, metadata={"axes": "ZYX"})
    made = ImagejRoi.frompoints(np.array(box(0, 0, 4, 4)), name="wall")
    made.position = 2
    (data / "s.roi").write_bytes(made.tobytes())
    convert(data, out, progress=False)
    assert [(page == 1).sum() for page in read_label(out / "labels" / "s.tif")] == [0, 16, 0]
    made.position = 4
    (data / "s.roi").write_bytes(made.tobytes())
    out.rename(tmp_path / "first")
    refused(data, "on page 4 of an image with 3")


def test_a_shape_outside_its_image_is_said(tmp_path, capsys):
    data = tmp_path / "data"
    image(data / "a.tif")
    rois(data / "RoiSet.zip", wall=(0, 0, 4, 4), far=(100, 100, 104, 104), thin=(3, 3, 3, 9))
    convert(data, tmp_path / "out", progress=False)
    text = capsys.readouterr().out
    assert "1 shape(s) reach beyond" in text
    assert "2 shape(s) fill no pixel: " in text
    assert "RoiSet.zip: ROI far, " in text and "RoiSet.zip: ROI thin" in text


def test_what_is_wrong_is_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    refused(data, "no shapes on images found")
    image(data / "a.tif")
    refused(data, "no shapes on images found")
    geojson(data / "b.geojson", ("wall", box(0, 0, 4, 4)))
    refused(data, "b.geojson: an image of the same name is not below")
    (data / "b.geojson").rename(data / "a.geojson")
    rois(data / "a.zip", wall=(0, 0, 4, 4))
    refused(data, "has annotations twice")
    (data / "a.zip").unlink()
    image(data / "a.png.tif").rename(data / "a.tiff")
    refused(data, "an image of the same name is one of")
    (data / "a.tiff").unlink()
    labelme(data / "c.json", "wall", box(0, 0, 4, 4), "c.tif")
    refused(data, "c.json: image 'c.tif' is not below")
    (data / "a.geojson").unlink()
    labelme(data / "c.json", "wall", box(0, 0, 4, 4), "a.tif", imageHeight=9, imageWidth=9)
    refused(data, "states 9x9 px (height x width) for a.tif, which has 24x32")
    labelme(data / "c.json", "wall", [[0, 0], [1, float("nan")], [2, 2]], "a.tif")
    refused(data, "c.json: shapes[0] (wall): a coordinate is NaN")
    coco(data / "c.json", ["wall"], **{"/etc/hostname": box(0, 0, 4, 4)})
    refused(data, "image '/etc/hostname' is not below")
    (data / "c.json").write_text("{")
    refused(data, "c.json: no readable JSON")
    geojson(data / "c.json", *[(f"class {n}", box(0, 0, 4, 4)) for n in range(300)])
    (data / "c.json").rename(data / "a.json")
    refused(data, "classes=")
    labelme(data / "a.json", "wall", box(0, 0, 4, 4), "a.tif")
    refused(data, "unlabeled='sky'", unlabeled="sky")


def test_images_of_one_name_are_refused(tmp_path):
    data = tmp_path / "data"
    image(data / "a.tif")
    image(data / "a.tiff")
    coco(data / "c.json", ["wall"], **{"a.tif": box(0, 0, 4, 4), "a.tiff": box(0, 0, 4, 4)})
    refused(data, "a.tiff: has the name of a.tif")


def test_the_new_folder_has_to_be_new(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "a.tif")
    rois(data / "RoiSet.zip", wall=(0, 0, 4, 4))
    with pytest.raises(UserError, match="lies in"):
        convert(data, data / "out", progress=False)
    out.mkdir()
    convert(data, out, progress=False)
    with pytest.raises(UserError, match="is not empty"):
        convert(data, out, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_a_failure_while_drawing_leaves_nothing(tmp_path, monkeypatch):
    data = tmp_path / "data"
    for name in "ab":
        image(data / f"{name}.tif")
        rois(data / f"{name}.zip", wall=(0, 0, 4, 4))
    written = []

    def full(*arguments):
        if written:
            raise OSError(28, "No space left on device")
        written.append(arguments)

    monkeypatch.setattr("feedseg.io.writers.imagej.write", full)
    with pytest.raises(Exception, match="No space left"):
        convert(data, tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_command(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    for name in "abc":
        image(data / f"{name}.tif")
        rois(data / f"{name}.zip", wall=(0, 0, 9, 9))
    command = ["check", str(data), "--convert", str(out), "--output", str(tmp_path / "report")]
    with notes.fresh():
        assert guarded(cli.run, command) == 0
    assert f"{out} can be used" in capsys.readouterr().out
    assert guarded(cli.run, ["check", str(data)]) == 2
    assert "shapes as in a.zip become labels by --convert FOLDER" in capsys.readouterr().err
    assert guarded(cli.run, command) == 2
    assert "is not empty" in capsys.readouterr().err
