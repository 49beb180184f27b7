"""A user's own images: layouts, pairing by name, classes from labels, refusals with a remedy."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import common
from feedseg import datasets
from feedseg.datasets import folder
from feedseg.datasets.common import dataset as base
from feedseg.datasets.common import facts, label_map, pairing, splits
from feedseg.io import normalize
from feedseg.runtime import notes
from feedseg.runtime.errors import BadImage, UserError

RNG = np.random.default_rng(0)
IDS = np.array([[0, 1], [1, 0]], np.uint8)
SQUARES = np.kron(IDS, np.ones((20, 20), np.uint8))


def options(**changes):
    data = common.base().data
    data.update({"name": "folder", **changes})
    return data


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        color = array.ndim == 3 and array.shape[-1] == 3
        tifffile.imwrite(path, array, photometric="rgb" if color else "minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def image(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape or (2, 2), np.uint8)


def put(root: Path, images: list[str], labels: list[str]) -> None:
    for name in images:
        write(root / name, image())
    for name in labels:
        write(root / name, IDS)


def refused(root: Path, words: str, error=UserError, **changes) -> str:
    with pytest.raises(error, match=words) as caught:
        folder.load(root, options(**changes))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


LAYOUTS = [
    (["images/a.tif", "images/b.png"], ["labels/a.png", "labels/b.png"], ["a", "b"]),
    (["images/a.TIF", "images/b.TIFF"], ["masks/a.PNG", "masks/b.Tif"], ["a", "b"]),
    (["Images/a.bmp", "Images/b.bmp"], ["Labels/a_mask.png", "Labels/b.png"], ["a", "b"]),
    (["raw/a.tif", "raw/b.tif"], ["label/b.tif", "label/a.tif"], ["a", "b"]),
    (
        ["imagesTr/a_0000.tif", "imagesTr/b_0000.tif"],
        ["labelsTr/a.tif", "labelsTr/b.tif"],
        ["a", "b"],
    ),
    (["a.tif", "b_img.tif"], ["a_masks.tif", "b_masks.tif"], ["a", "b"]),
]


@pytest.mark.parametrize("images, labels, names", LAYOUTS)
def test_layouts_pair_by_name(tmp_path, images, labels, names):
    put(tmp_path, images, labels)
    found = pairing.find_pairs(tmp_path)
    assert found.layout and not found.unmatched_images and not found.unmatched_labels
    assert [pair.name for pair in found.pairs] == names
    for pair in found.pairs:
        assert pair.image.stem[0] == pair.label.stem[0] == pair.name
        assert pair.image != pair.label and pair.part == ""
    source = folder.load(tmp_path, options())
    assert source.class_names == ("class0", "class1") and source.parts == {}
    assert (source.sections[0].label == IDS).all() and source.sections[0].image.shape == (2, 2, 1)


def test_files_are_not_paired_by_their_order(tmp_path):
    put(tmp_path, ["images/a.tif", "images/b.tif"], ["labels/b.tif", "labels/c.tif"])
    found = pairing.find_pairs(tmp_path)
    assert [p.name for p in found.pairs] == ["b"]
    assert [p.name for p in found.unmatched_images] == ["a.tif"]
    assert [p.name for p in found.unmatched_labels] == ["c.tif"]
    text = refused(tmp_path, "1 images without a label")
    assert "images/a.tif" in text and "1 labels without an image (labels/c.tif)" in text


def test_at_most_five_names_a_side(tmp_path):
    put(tmp_path, [f"images/{i}.tif" for i in range(9)], ["labels/0.tif", "labels/1.tif"])
    assert "images/6.tif and 2 more" in refused(tmp_path, "7 images without a label")


def test_two_candidates_are_not_chosen_between(tmp_path):
    put(tmp_path, ["images/a.tif", "images/a.png"], ["labels/a.tif", "labels/b.tif"])
    found = pairing.find_pairs(tmp_path)
    assert found.pairs == []
    assert {p.name for p in found.unmatched_images} == {"a.tif", "a.png"}
    refused(tmp_path, "2 images without a label")


def test_second_channel_of_nnunet_is_not_dropped(tmp_path):
    images = ["imagesTr/a_0000.tif", "imagesTr/a_0001.tif", "imagesTr/b_0000.tif"]
    put(tmp_path, images, ["labelsTr/a.tif", "labelsTr/b.tif"])
    text = r"b_0001\.tif: no such file, the channel b_0001\.tif of b_0000\.tif"
    assert "imagesTr" in refused(tmp_path, text)


def test_channels_of_nnunet_are_stacked(tmp_path):
    pixels = image(2, 2, 40, 40)  # image, channel
    for place, ending in np.ndindex(2, 2):
        write(tmp_path / "imagesTr" / f"{'ab'[place]}_000{ending}.tif", pixels[place, ending])
    for name in "ab":
        write(tmp_path / "labelsTr" / f"{name}.tif", SQUARES)
    with notes.collected() as texts:
        source = folder.load(tmp_path, options())
    assert [s.name for s in source.sections] == ["a", "b"] and not source.color
    np.testing.assert_array_equal([s.image for s in source.sections], pixels.transpose(0, 2, 3, 1))
    assert "_0000, _0001 are stacked as channels" in texts[0]


def test_channel_files_and_chosen_channels(tmp_path):
    pixels = image(2, 40, 40)
    for ending, channel in zip(("_w1", "_DAPI"), pixels, strict=True):
        write(tmp_path / "images" / "day1" / f"a{ending}.tif", channel)
    write(tmp_path / "labels" / "day1" / "a.tif", SQUARES)
    endings = dict(channel_files="_w1,_DAPI")
    (section,) = folder.load(tmp_path, options(**endings)).sections
    assert section.name == "day1_a"
    np.testing.assert_array_equal(section.image, pixels.transpose(1, 2, 0))
    (section,) = folder.load(tmp_path, options(**endings, channels="DAPI")).sections
    np.testing.assert_array_equal(section.image[..., 0], pixels[1])


@pytest.mark.parametrize("z, pages", [("", 3), ("2", 1), ("2-3", 2), ("max", 1)])
def test_slices_of_a_stack_have_those_of_its_labels(tmp_path, z, pages):
    stack, ids = image(3, 40, 40), np.stack([SQUARES, SQUARES[::-1], np.tri(40, dtype=np.uint8)])
    write(tmp_path / "images" / "a.tif", stack)
    write(tmp_path / "labels" / "a.tif", ids[0] if z == "max" else ids)
    sections = folder.load(tmp_path, options(z=z)).sections
    first = int(z[0]) - 1 if z[:1].isdigit() else 0
    assert len(sections) == pages
    for section, label, page in zip(sections, ids[first:], stack[first:], strict=False):
        np.testing.assert_array_equal(section.label, label)
        expected = stack.max(0) if z == "max" else page
        np.testing.assert_array_equal(section.image[..., 0], expected)


def test_series_of_files(tmp_path):
    (tmp_path / "images").mkdir()
    first, second = image(16, 16), image(40, 40)
    with tifffile.TiffWriter(tmp_path / "images" / "a.ome.tif", ome=True) as file:
        file.write(first, metadata={"axes": "YX", "Name": "overview"})
        file.write(second, metadata={"axes": "YX", "Name": "cells"})
    write(tmp_path / "labels" / "a.ome.tif", SQUARES)
    assert '2 "cells" (40x40 uint8)' in refused(tmp_path, "choose one with --series")
    (section,) = folder.load(tmp_path, options(series="cells")).sections
    np.testing.assert_array_equal(section.image[..., 0], second)


@pytest.mark.parametrize(
    "key, value", [("series", "2"), ("z", "max"), ("channel_files", "_0,_1"), ("channels", "DAPI")]
)
def test_other_data_sets_take_no_choice_of_pixels(key, value):
    config = common.base()
    config.data[key] = value
    with pytest.raises(UserError, match=f"data.{key}='?{value}"):
        datasets.load(config)


def test_parts_from_folders(tmp_path):
    for part in ("train", "Validation", "test"):
        put(
            tmp_path, [f"{part}/raw/{i}.tif" for i in "ab"], [f"{part}/label/{i}.tif" for i in "ab"]
        )
    source = folder.load(tmp_path, options())
    assert source.parts == {
        "train": ["train_a", "train_b"],
        "val": ["val_a", "val_b"],
        "test": ["test_a", "test_b"],
    }
    dataset = base.assemble("folder", source, options(crop_size=2))
    assert dataset.parts == {"train": [0, 1], "val": [2, 3], "test": [4, 5]}


def test_a_part_without_labels_is_reported(tmp_path):
    put(tmp_path, ["train/images/a.tif", "test/images/b.tif"], ["train/labels/a.tif"])
    assert "test/images/b.tif" in refused(tmp_path, "1 images without a label")


def test_explicit_list(tmp_path):
    put(tmp_path, ["x/one.tif", "x/two.tif"], ["y/1.tif", "y/2.tif"])
    table = tmp_path / "pairs.csv"
    table.write_text("image,label,part\nx/one.tif,y/2.tif,train\nx/two.tif,y/1.tif,test\n")
    found = pairing.find_pairs(tmp_path)
    assert [(p.name, p.label.name, p.part) for p in found.pairs] == [
        ("x_one", "2.tif", "train"),
        ("x_two", "1.tif", "test"),
    ]
    assert folder.load(tmp_path, options()).parts == {"train": ["x_one"], "test": ["x_two"]}


@pytest.mark.parametrize(
    "text, words",
    [
        ("picture,label\nx/one.tif,y/1.tif\n", "unknown column .picture.; known: image, label"),
        ("image,label\nx/one.tif,y/9.tif\n", r"line 2: label 'y/9.tif' is no file"),
        ("image,label\nx/one.tif\n", r"line 2: label '' is no file"),
        ("image,label,part\nx/one.tif,y/1.tif,trian\n", "split .trian.: write train"),
        ("image,label,part\nx/one.tif,y/1.tif,train\nx/one.tif,y/1.tif,\n", "all or none"),
        ("image,label\nx/one.tif,y/1.tif\nx/one.tif,y/1.tif\n", "duplicate names: x_one"),
        ("image,label\n", "no images found"),
    ],
)
def test_bad_lists(tmp_path, text, words):
    put(tmp_path, ["x/one.tif"], ["y/1.tif"])
    (tmp_path / "pairs.csv").write_text(text)
    refused(tmp_path, words)


@pytest.mark.parametrize(
    "names",
    [("images.tif", "labels.tif"), ("images/s.tif", "labels/t.tif"), ("Raw.tif", "Mask.tif")],
)
def test_one_stack_beside_one_stack_of_labels(tmp_path, names):
    pages = image(3, 4, 5)
    write(tmp_path / names[0], pages)
    labels = RNG.integers(0, 2, (3, 4, 5), np.uint8)
    write(tmp_path / names[1], labels)
    source = folder.load(tmp_path, options())
    stem = Path(names[0]).stem
    assert [s.name for s in source.sections] == [f"{stem}_p000", f"{stem}_p001", f"{stem}_p002"]
    assert (source.sections[2].image[..., 0] == pages[2]).all()
    assert (source.sections[2].label == labels[2]).all()


def test_stacks_of_different_length(tmp_path):
    write(tmp_path / "images.tif", image(3, 4, 5))
    write(tmp_path / "labels.tif", np.zeros((2, 4, 5), np.uint8))
    refused(tmp_path, r"labels\.tif: 2 pages, its image images\.tif has 3")


def test_nothing_to_pair(tmp_path):
    refused(tmp_path, "no images with labels found; expected images/")
    refused(tmp_path / "missing", "no such folder")
    put(tmp_path, ["images/a.tif", "c.tif"], [])
    assert pairing.find_pairs(tmp_path).layout == ""
    (tmp_path / "labels").mkdir()
    refused(tmp_path, "1 images without a label")
    (tmp_path / "images/a.tif").unlink()
    refused(tmp_path, r"images/ \+ labels/: no images found")


# --- classes ----------------------------------------------------------------------------------


def with_labels(root: Path, *labels: np.ndarray) -> Path:
    for number, label in enumerate(labels):
        write(root / f"images/{number}.tif", image(*label.shape[:2]))
        write(root / f"labels/{number}.tif", label)
    return root


def test_classes_over_all_files_and_void(tmp_path):
    one, two = np.array([[0, 0, 1]], np.uint8), np.array([[255, 2, 2]], np.uint8)
    source = folder.load(with_labels(tmp_path, one, two), options())
    assert source.class_names == ("class0", "class1", "class2")
    assert len(set(source.class_colors)) == 3
    assert source.sections[1].label.tolist() == [[base.VOID, 2, 2]]


def test_names_from_options_json_and_text(tmp_path):
    with_labels(tmp_path, IDS)
    (tmp_path / "classes.txt").write_text("dark\n\nbright\n")
    assert folder.load(tmp_path, options()).class_names == ("dark", "bright")
    table = {"labels": {"background": 0, "cell": 1, "nucleus": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    source = folder.load(tmp_path, options())
    assert source.class_names == ("background", "cell", "nucleus")  # one may be absent
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "sky", "1": "sea"}}))
    assert folder.load(tmp_path, options()).class_names == ("sky", "sea")
    assert folder.load(tmp_path, options(classes=("x", "y"))).class_names == ("x", "y")
    refused(tmp_path, "class names repeat: x, x", classes=("x", "x"))


def test_ignore_label_of_dataset_json_is_void(tmp_path):
    with_labels(tmp_path, np.array([[0, 1, 2]], np.uint8))
    table = {"labels": {"background": 0, "cell": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    source = folder.load(tmp_path, options())
    assert source.class_names == ("background", "cell")
    assert source.sections[0].label.tolist() == [[0, 1, base.VOID]]


BAD_JSON = {
    "{": "invalid",
    "[]": "no JSON object",
    '{"a": ' + "[" * 200_000: "nested more than 64 levels",
    '{"labels": {"a": [0, 1]}}': r"'a': \[0, 1\]",
    '{"labels": {"a": 0, "b": 2}}': "are not 0, 1, 2",
    '{"labels": {"a": 0, "b": 0}}': "label ids 0, 0 are not",
    '{"labels": {"x": "y"}}': "'x': 'y'",
    '{"labels": {"a": 0, "b": 1.5}}': "'b': 1.5",
    '{"labels": {"a": false, "b": true}}': "'a': False",
    '{"labels": {"0": {}}}': "'0': {}",
    '{"labels": "*.png", "classes": ["a", "b"]}': r"classes=\['a', 'b'\]",
}


@pytest.mark.parametrize("text", BAD_JSON)
def test_bad_dataset_json(tmp_path, text):
    with_labels(tmp_path, IDS)
    (tmp_path / "dataset.json").write_text(text)
    refused(tmp_path, rf"dataset\.json: .*{BAD_JSON[text]}")


def test_bad_names(tmp_path):
    with_labels(tmp_path, IDS)
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\nb")
    refused(tmp_path, r"classes\.txt: cannot be read .*UTF-8")
    (tmp_path / "classes.txt").write_text("\n".join(f"c{number}" for number in range(256)))
    refused(tmp_path, "a list of 0 to 255")
    refused(tmp_path, r"classes\[1\]=''", classes=("a", ""))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, np.uint16])
def test_whole_numbers_of_any_type(tmp_path, dtype):
    source = folder.load(with_labels(tmp_path, IDS.astype(dtype)), options())
    assert source.sections[0].label.dtype == np.uint8
    assert (source.sections[0].label == IDS).all()


BAD = [
    (np.array([[0, 255]], np.uint8), "0 and 255", "0:0,255:1"),
    (np.array([[0, 128, 255]], np.uint8), "0, 128, 255", "0:0,128:1,255:2"),
    (np.array([[0, 1, 3]], np.uint8), "consecutive", "0:0,1:1,3:2"),
    (np.array([[0, 2, 255]], np.uint8), "consecutive", "0:0,2:1,255:255"),
    (np.array([[1, 2]], np.uint8), "consecutive", "1:0,2:1"),
    (np.arange(0, 256, 3, np.uint8)[None], "interpolated", "0-127:0,128-255:1"),
    (np.arange(0, 256, dtype=np.uint8)[None], "interpolated", "0-127:0,128-255:1"),
    (np.arange(0, 40, dtype=np.uint8)[None], "40 ids", "0:0,1-39:1"),
    (np.arange(0, 300, dtype=np.uint16)[None], "every object", "0:0,1-299:1"),
]


@pytest.mark.parametrize("label, words, proposed", BAD)
def test_labels_that_need_a_map(tmp_path, label, words, proposed):
    assert label_map.suggest(label) == proposed
    with_labels(tmp_path, label)
    text = refused(tmp_path, words)
    assert text.endswith(f"--config.data.label_map={proposed}") and "labels/0.tif" in text
    source = folder.load(tmp_path, options(label_map=proposed))
    ids = {v for s in source.sections for v in np.unique(s.label).tolist()} - {base.VOID}
    assert ids == set(range(len(source.class_names)))


def test_labels_that_no_map_mends(tmp_path):
    assert label_map.suggest(np.array([1, 500, *range(600, 700)])) is None
    refused(with_labels(tmp_path / "a", np.zeros((2, 2), np.uint8)), "at least two classes")
    refused(with_labels(tmp_path / "b", np.array([[0.0, 0.5]], np.float32)), "fractions", BadImage)
    refused(with_labels(tmp_path / "c", np.array([[0, -1]], np.int16)), r"labels/0\.tif", BadImage)
    refused(with_labels(tmp_path / "d", np.array([[0, np.nan]], np.float32)), "NaN", BadImage)
    refused(with_labels(tmp_path / "e", image(4, 4, 3)), r"labels/0\.tif.* channels", BadImage)
    refused(with_labels(tmp_path / "f", IDS * 2), "2 classes are named", classes=("a", "b"))


def test_the_label_file_with_the_odd_value_is_named(tmp_path):
    with_labels(tmp_path, IDS, IDS, np.array([[0, 7]], np.uint8), IDS)
    assert "labels/2.tif and 3 more: " in refused(tmp_path, "consecutive")


@pytest.mark.parametrize(
    "text, words",
    [
        ("0:0,255", "'255' is not value:id"),
        ("0:0;255:1", "is not value:id"),
        ("0:0,255:256", "is not value:id"),
        ("0-9:0,5:1", "gray value 5 is named twice"),
        ("0:0", r"labels/0\.tif: values 255 are not in data\.label_map"),
        ("0:0,255:2", "gives the ids 0, 2; it must give consecutive ids"),
        ("0:1,255:2", "consecutive ids from 0"),
    ],
)
def test_bad_maps(tmp_path, text, words):
    with_labels(tmp_path, np.array([[0, 255]], np.uint8))
    refused(tmp_path, words, label_map=text)


def test_map_to_void(tmp_path):
    with_labels(tmp_path, np.array([[0, 128, 255]], np.uint8))
    source = folder.load(tmp_path, options(label_map="0:0,128:255,255:1"))
    assert source.sections[0].label.tolist() == [[0, base.VOID, 1]]


# --- images -----------------------------------------------------------------------------------


def test_bad_images(tmp_path):
    with_labels(tmp_path, IDS, IDS)
    write(tmp_path / "labels/1.tif", np.zeros((2, 3), np.uint8))
    refused(tmp_path, r"labels/1\.tif: label is 2x3 px \(height x width\), its image 2x2")
    write(tmp_path / "labels/1.tif", IDS)
    write(tmp_path / "images/1.tif", image(2, 2).astype(np.uint16))
    refused(tmp_path, r"images/1\.tif: uint16 with 1 channels, 0\.tif is uint8")
    write(tmp_path / "images/1.tif", np.array([[0, np.nan], [1, 1]], np.float32))
    refused(tmp_path, r"images/1\.tif.*NaN", BadImage)
    (tmp_path / "images/1.tif").write_bytes(b"II*\0junk")
    refused(tmp_path, r"images/1\.tif", BadImage)


def test_color_and_grey_images_join_as_grey(tmp_path):
    with_labels(tmp_path, IDS, IDS)
    write(tmp_path / "images/1.tif", image(2, 2, 3))
    refused(tmp_path, r"images/1\.tif: uint8 with 3 channels")
    source = folder.load(tmp_path, options(channels="grey"))
    assert {s.image.shape for s in source.sections} == {(2, 2, 1)}


def test_palette_has_distinct_colors():
    for count in (2, 12, 64):
        colors = folder.palette(count)
        assert len(set(colors)) == count and colors[0] == (0, 0, 0)


def loaded(root: Path, **changes):
    """The arrays of a run on a folder, by its configuration."""
    config = common.base()
    with config.unlocked():
        config.data.update(name="folder", normalization="image_percentile", crop_size=0)
        config.split.update(scheme="auto", group_by_source=True)
        config.data_dir = str(root)
        for key, value in changes.items():
            part, name = key.split("__")
            config[part][name] = value
    return datasets.load(config), config


def test_pages_of_a_movie_are_one_group(tmp_path):
    for name in "abc":
        write(tmp_path / "images" / f"{name}.tif", image(8, 16, 16))
        write(tmp_path / "labels" / f"{name}.tif", np.tile(IDS, (8, 8, 8)))
    data, config = loaded(tmp_path)
    parts = splits.split(data, config.split)
    movies = [{data.item_names[i][0] for i in part} for part in parts]
    assert [len(each) for each in movies] == [1, 1, 1] and len(set.union(*movies)) == 3


def test_groups_by_a_pattern_in_the_file_names(tmp_path):
    names = [f"{slide}_{n}.tif" for slide in ("s1", "s2", "s3") for n in range(3)]
    put(tmp_path, [f"images/{n}" for n in names], [f"labels/{n}" for n in names])
    for pattern in (r"(s\d+)_", r"s\d+"):
        data, config = loaded(tmp_path, split__group=pattern)
        parts = splits.split(data, config.split)
        slides = [{data.item_names[i][:2] for i in part} for part in parts]
        assert len(set.union(*slides)) == 3 and sum(map(len, slides)) == 3
    with pytest.raises(UserError, match=r"does not fit images/s2_0\.tif"):
        loaded(tmp_path, split__group="s1")
    with pytest.raises(UserError, match="no regular expression"):
        loaded(tmp_path, split__group="(s1")
    with pytest.raises(UserError, match=r"split\.group=s: is for data\.name=folder"):
        config.data.name = "wbc"
        config.split.group, config.data_dir = "s", str(tmp_path / "images")
        (tmp_path / "images" / "wbc").mkdir()
        datasets.load(config)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_stains_are_scaled_one_by_one(tmp_path, channels):
    """The second is 200 times as bright and says nothing."""
    for name in "abc":
        stack = image(channels, 8, 8).astype(np.uint16)
        stack[1:] *= 200
        path = tmp_path / "images" / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "CYX"})
        write(tmp_path / "labels" / f"{name}.tif", np.tile(IDS, (4, 4)))
    data, config = loaded(tmp_path)
    assert data.normalization == "channel_percentile" and data.high.shape == (3, channels)
    assert facts.describe(data, config.data)["normalization"] == "channel_percentile"
    scaled = normalize.apply(data.images[..., 0, 0, :][:, None, None], data.low, data.high)
    assert scaled.shape[-1] == channels
    np.testing.assert_allclose(data.high[:, 1] / data.high[:, 0], 200, rtol=0.5)


def test_colors_are_scaled_together(tmp_path):
    for name in "abc":
        write(tmp_path / "images" / f"{name}.tif", image(8, 8, 3))
        write(tmp_path / "labels" / f"{name}.tif", np.tile(IDS, (4, 4)))
    data, _ = loaded(tmp_path)
    assert data.normalization == "image_percentile" and data.high.shape == (3,)


def test_channels_taken_for_pages_are_named(tmp_path):
    for name in "abc":
        write(tmp_path / "images" / f"{name}.tif", image(2, 8, 8))
        write(tmp_path / "labels" / f"{name}.tif", np.tile(IDS, (4, 4)))
    refused(tmp_path, r"name its axes: --config\.data\.axes=CYX")
    data, _ = loaded(tmp_path, data__axes="CYX")
    assert data.images.shape == (3, 16, 16, 2)


def instances(*counts: int) -> list[np.ndarray]:
    """Labels of 40 x 40 px with so many squares, each with its own id."""
    labels = []
    for count in counts:
        label = np.zeros((40, 40), np.uint8)
        for number in range(count):
            y, x = divmod(number, 3)
            label[12 * y : 12 * y + 9, 12 * x : 12 * x + 9] = number + 1
        labels.append(label)
    return labels


def test_few_objects_with_ids_of_their_own_are_noted(tmp_path):
    with_labels(tmp_path / "a", *instances(4, 2, 3))
    with notes.collected() as texts:
        folder.load(tmp_path / "a", options())
    assert len(texts) == 1 and "label map 0:0,1-4:1" in texts[0]
    with notes.collected() as texts:
        folder.load(tmp_path / "a", options(label_map="0:0,1-4:1"))
    assert not texts


def test_classes_in_one_part_each_are_no_objects(tmp_path):
    """A cell with its nucleus in every image."""
    with_labels(tmp_path / "a", *instances(2, 2, 2))
    scattered = RNG.integers(0, 4, (40, 40)).astype(np.uint8)
    with_labels(tmp_path / "b", *instances(4, 2), scattered)
    for name in "ab":
        with notes.collected() as texts:
            folder.load(tmp_path / name, options())
        assert not texts


def test_the_pixel_size_and_the_objects_of_the_images_are_kept(tmp_path):
    for name in "abc":
        write(tmp_path / "labels" / f"{name}.tif", (instances(6)[0] > 0).astype(np.uint8))
        path = tmp_path / "images" / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(
            path, image(40, 40), imagej=True, resolution=(4, 4), metadata={"unit": "um"}
        )
    data, config = loaded(tmp_path)
    seen = facts.describe(data, config.data)["training_images"]
    assert seen["pixel_um"] == 0.25 and seen["brightest"] == 1
    ((name, (low, median, high)),) = seen["objects"].items()
    assert name == "class1" and low == median == high == pytest.approx(2 * 9 / np.pi**0.5, abs=0.1)


def calibrated(root: Path, **pixels: float) -> Path:
    """Squares of 8 µm in images whose pixels are of these sizes, µm; 0: not stated."""
    for name, pixel in pixels.items():
        side, scale = round(32 / (pixel or 1)), round(8 / (pixel or 1))
        label = np.zeros((side, side), np.uint8)
        label[scale : 2 * scale, scale : 2 * scale] = 1
        write(root / "labels" / f"{name}.tif", label)
        stated = dict(resolution=(1 / pixel, 1 / pixel), metadata={"unit": "um"}) if pixel else {}
        (root / "images").mkdir(exist_ok=True)
        tifffile.imwrite(root / "images" / f"{name}.tif", 200 * label, imagej=True, **stated)
    return root


def test_all_images_come_to_one_pixel_size(tmp_path):
    calibrated(tmp_path, a=0.25, b=0.5, c=1.0)
    with notes.collected() as texts:
        data, config = loaded(tmp_path, data__pixel_size=0.5)
    assert not texts
    assert data.images.shape == (3, 64, 64, 1) and data.images.dtype == np.uint8
    expected = np.zeros((64, 64), np.uint8)
    expected[16:32, 16:32] = 1
    for image_, label in zip(data.images[..., 0], data.labels, strict=True):
        np.testing.assert_array_equal(label, expected)
        np.testing.assert_array_equal(image_[18:30, 18:30], 200)
        assert not image_[:13].any() and not image_[35:].any()
    assert facts.describe(data, config.data)["training_images"]["pixel_um"] == 0.5


def test_mixed_pixel_sizes_are_said(tmp_path):
    calibrated(tmp_path, a=0.25, b=0.25, c=1.0, d=0)
    with notes.collected() as texts:
        data, _ = loaded(tmp_path)
    assert data.pixel_um is None
    assert "(0.25 µm in 2, 1 µm in 1, none stated in 1)" in texts[0]
    assert "--config.data.pixel_size=0.25 brings" in texts[0]


@pytest.mark.parametrize(
    "pixel, wanted, text",
    [
        (0, 0.5, r"d\.tif: states no pixel size, which data\.pixel_size=0\.5 needs"),
        (0.25, 10.0, r"d\.tif: pixels of 0\.25 x 0\.25 µm, too far from data\.pixel_size=10"),
    ],
)
def test_pixel_sizes_that_cannot_be(tmp_path, pixel, wanted, text):
    with pytest.raises(UserError, match=text):
        loaded(calibrated(tmp_path, d=pixel), data__pixel_size=wanted)


def test_other_data_sets_take_no_pixel_size():
    config = common.base()
    config.data.pixel_size = 0.5
    with pytest.raises(UserError, match=r"data\.pixel_size=0\.5: is for data\.name=folder"):
        datasets.load(config)


@pytest.mark.parametrize(
    "text",
    [
        "Image,Label\nx/one.tif,y/1.tif\nx/two.tif,y/2.tif\n",
        " image ; label \n x/one.tif ; y/1.tif \n\nx/two.tif;y/2.tif\n",
        "\ufeffimage\tlabel\nx\\one.tif\ty\\1.tif\nx\\two.tif\ty\\2.tif\n",
        "LABEL,IMAGE\r\ny/1.tif,x/one.tif\r\ny/2.tif,x/two.tif\r\n",
    ],
)
def test_lists_as_programs_write_them(tmp_path, text):
    put(tmp_path, ["x/one.tif", "x/two.tif"], ["y/1.tif", "y/2.tif"])
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8", newline="")
    pairs = pairing.find_pairs(tmp_path).pairs
    assert [(p.image.name, p.label.name) for p in pairs] == [
        ("one.tif", "1.tif"),
        ("two.tif", "2.tif"),
    ]


def test_splits_and_groups_of_a_list(tmp_path):
    names = [f"{n}.tif" for n in range(6)]
    put(tmp_path, [f"x/{n}" for n in names], [f"y/{n}" for n in names])
    rows = [f"x/{n},y/{n},{'abc'[i // 2]}" for i, n in enumerate(names)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,label,group", *rows]))
    data, config = loaded(tmp_path)
    parts = [{int(data.item_names[i][2]) // 2 for i in p} for p in splits.split(data, config.split)]
    assert sorted(map(len, parts)) == [1, 1, 1] and len(set.union(*parts)) == 3
    kinds = ["Training", "train", "VAL", "validation", "test", "testing"]
    rows = [f"{row},{kind}" for row, kind in zip(rows, kinds, strict=True)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,label,group,split", *rows]))
    source = folder.load(tmp_path, options())
    assert {part: len(members) for part, members in source.parts.items()} == {
        "train": 2,
        "val": 2,
        "test": 2,
    }


@pytest.mark.parametrize(
    "text, words",
    [
        ("image,label,spilt\n", "unknown column 'spilt', did you mean 'split'"),
        ("image,label,split,part\n", "part and split mean the same; keep one"),
        ("image,label,image\n", "each once"),
        ("image,label\nx/one.tif,y/1.tif,z\n", "line 2: 3 values for 2 columns"),
        (
            "image,label,split,group\nx/one.tif,y/1.tif,train,a\nx/one.tif,y/1.tif,test,a\n",
            "group 'a' is in several parts",
        ),
    ],
)
def test_columns_that_are_not_understood_are_refused(tmp_path, text, words):
    put(tmp_path, ["x/one.tif"], ["y/1.tif"])
    (tmp_path / "pairs.csv").write_text(text)
    refused(tmp_path, words)


def test_sub_folders_pair_by_their_names(tmp_path):
    names = [f"{day}/{name}" for day in ("day1", "day2") for name in ("a.tif", "b.tif")]
    put(tmp_path, [f"images/{n}" for n in names], [f"labels/{n}" for n in names])
    found = pairing.find_pairs(tmp_path)
    assert [pair.name for pair in found.pairs] == ["day1_a", "day1_b", "day2_a", "day2_b"]
    assert all(p.image.parent.name == p.label.parent.name for p in found.pairs)
    write(tmp_path / "images" / "day3" / "c.tif", image())
    assert "day3/c.tif" in refused(tmp_path, "1 images without a label")


def test_sub_folders_inside_parts_pair_by_their_names(tmp_path):
    for part in ("train", "test"):
        names = [f"{day}/a.tif" for day in ("day1", "day2")]
        put(tmp_path, [f"{part}/images/{n}" for n in names], [f"{part}/labels/{n}" for n in names])
    assert folder.load(tmp_path, options()).parts == {
        "train": ["train_day1_a", "train_day2_a"],
        "test": ["test_day1_a", "test_day2_a"],
    }
    write(tmp_path / "test" / "labels" / "day3" / "a.tif", IDS)
    assert "test/labels/day3/a.tif" in refused(tmp_path, "1 labels without an image")


def test_names_of_sub_folders_are_unique(tmp_path):
    names = ["day1/a.tif", "day1_a.tif", "x/y_z.tif", "x_y/z.tif"]
    put(tmp_path, [f"images/{n}" for n in names], [f"labels/{n}" for n in names])
    expected = ["day1__a", "day1_a", "x__y_z", "x_y__z"]
    assert [s.name for s in folder.load(tmp_path, options()).sections] == expected
    rows = [f"images/{name},labels/{name}" for name in names]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,label", *rows]))
    assert len({s.name for s in folder.load(tmp_path, options()).sections}) == 4


def test_two_files_of_different_sub_folders_are_no_pair(tmp_path):
    put(tmp_path, ["images/day1/a.tif"], ["labels/day2/b.tif"])
    text = refused(tmp_path, "1 images without a label")
    assert "images/day1/a.tif" in text and "labels/day2/b.tif" in text


def test_linked_sub_folders_count(tmp_path):
    put(tmp_path, ["images/a.tif", "far/b.tif"], ["labels/a.tif", "labels/day1/b.tif"])
    (tmp_path / "images" / "day1").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "up").symlink_to(tmp_path / "images")
    assert [pair.name for pair in pairing.find_pairs(tmp_path).pairs] == ["a", "day1_b"]
