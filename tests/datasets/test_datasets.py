"""Loaders of the published datasets, on small files in their layouts and on the real data."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ml_collections import ConfigDict
from PIL import Image

from configs import common
from feedseg.datasets import dsb2018, irpe, isbi2012, mouse_liver, nist_phase16, sstem, wbc
from feedseg.datasets.common import dataset as base
from feedseg.datasets.common import readers
from feedseg.runtime.errors import BadImage, UserError

RNG = np.random.default_rng(0)


def options(**changes) -> ConfigDict:
    data = common.base().data
    data.unlock()
    data.update({"fold": 0, **changes})
    return data


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def grey(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape or (8, 8), np.uint8)


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert error.value.exit_code == 2
    return text


# --- channels ---------------------------------------------------------------------------------


def test_grey_is_the_rounded_luma():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    got = base.apply_channels(image, "grey")
    assert got.dtype == np.uint8
    assert got[0, :, 0].tolist() == [76, 150, 29, 18]  # 76.245, 149.685, 29.07, 18.15
    wide = base.apply_channels(image.astype(np.uint16) * 257, "grey")
    assert wide.dtype == np.uint16 and wide[0, 0, 0] == round(0.299 * 65535)
    real = base.apply_channels(image.astype(np.float32) / 255, "grey")
    assert real.dtype == np.float32 and np.isclose(real[0, 1, 0], 0.587)


def test_channels_as_they_are_and_bad_choices():
    image = grey(4, 4, 3)
    assert base.apply_channels(image, "as_is") is image
    assert base.apply_channels(image[..., :1], "grey").shape == (4, 4, 1)
    with pytest.raises(UserError, match=r"data\.channels='gray'"):
        base.apply_channels(image, "gray")
    with pytest.raises(UserError, match="2 channels"):
        base.apply_channels(image[..., :2], "grey")


# --- sstem ------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path) -> Path:
    """Two sections of 4x4 px; their rows: cytoplasm, membrane, mitochondria, synapse."""
    rows = np.repeat(np.arange(4), 4).reshape(4, 4)
    for number in (0, 1):
        folder = tmp_path / "stack1"
        write(folder / f"raw/{number:02d}.tif", grey(4, 4))
        everything = rows >= 1  # overlaps: the later class wins
        write(folder / f"membranes/{number:02d}.png", everything)  # 1 bit
        write(
            folder / f"mitochondria/{number:02d}.png",
            ((rows >= 2) * 255 + (rows < 2) * 127).astype(np.uint8),
        )
        write(folder / f"synapses/{number:02d}.png", np.where(rows == 3, 128, 0).astype(np.uint8))
        values = np.array([[255, 159, 255, 255], [0, 32, 64, 96], [191, 128, 191, 191], [223] * 4])
        write(folder / f"labels/labels{number:08d}.png", values.astype(np.uint8))
    return tmp_path


def test_sstem_masks_with_priority(stack):
    source = sstem.load(stack, options())
    assert [s.name for s in source.sections] == ["00", "01"]
    assert source.sections[1].label.tolist() == [[0] * 4, [1] * 4, [2] * 4, [3] * 4]
    assert source.sections[0].image.shape == (4, 4, 1)
    assert source.class_names == ("cytoplasm", "membrane", "mitochondria", "synapse")
    inner = sstem.load(stack / "stack1", options())
    assert (inner.sections[0].image == source.sections[0].image).all()


def test_sstem_labels_by_documented_values(stack):
    label = sstem.load(stack, options(truth="labels")).sections[0].label
    assert label.tolist() == [[0] * 4, [1] * 4, [2, 1, 2, 2], [3] * 4]


def test_sstem_bad_input(stack):
    folder = stack / "stack1"
    with pytest.raises(UserError, match=r"data\.truth='both'") as error:
        sstem.load(stack, options(truth="both"))
    one_line(error)
    write(folder / "labels/labels00000001.png", np.full((4, 4), 7, np.uint8))
    with pytest.raises(UserError, match=r"labels00000001\.png: gray values 7"):
        sstem.load(stack, options(truth="labels"))
    write(folder / "synapses/01.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(UserError, match=r"synapses/01.png: label is 4x5 px"):
        sstem.load(stack, options())
    (folder / "synapses/01.png").unlink()
    with pytest.raises(UserError, match="synapses: no file for the sections 1"):
        sstem.load(stack, options())
    write(folder / "synapses/01.png", np.zeros((4, 4), np.uint8))
    write(folder / "synapses/02.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match="files 2 have no section"):
        sstem.load(stack, options())
    write(folder / "raw/1.tif", grey(4, 4))
    with pytest.raises(UserError, match="same number"):
        sstem.load(stack, options())
    with pytest.raises(UserError, match="no sstem data here; expected stack1/raw"):
        sstem.load(stack / "nothing", options())


def test_sstem_truncated_section(stack):
    path = stack / "stack1/raw/00.tif"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadImage, match=r"raw/00\.tif") as error:
        sstem.load(stack, options())
    one_line(error)


# --- isbi2012 ---------------------------------------------------------------------------------


def test_isbi_polarity_and_order(tmp_path):
    images = grey(3, 6, 6)
    labels = np.full((3, 6, 6), 255, np.uint8)
    labels[2, 0, :2] = 0
    write(tmp_path / "train-volume.tif", images)
    write(tmp_path / "train-labels.tif", labels)
    source = isbi2012.load(tmp_path, options())
    assert [s.name for s in source.sections] == ["00", "01", "02"]
    assert (source.sections[1].image[..., 0] == images[1]).all()
    assert source.sections[2].label[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert source.sections[0].label.sum() == 0


def test_isbi_single_pictures_by_number(tmp_path):
    for number in (10, 9, 0):
        write(tmp_path / f"train/image/{number}.png", np.full((4, 4), number, np.uint8))
        write(tmp_path / f"train/label/{number}.png", np.zeros((4, 4), np.uint8))
    source = isbi2012.load(tmp_path, options())
    assert [s.name for s in source.sections] == ["00", "09", "10"]
    assert [int(s.image[0, 0, 0]) for s in source.sections] == [0, 9, 10]
    assert source.sections[0].label.all()


def test_isbi_bad_input(tmp_path):
    with pytest.raises(UserError, match=r"train-volume\.tif: no such file"):
        isbi2012.load(tmp_path, options())
    write(tmp_path / "train-volume.tif", grey(3, 6, 6))
    write(tmp_path / "train-labels.tif", np.zeros((2, 6, 6), np.uint8))
    with pytest.raises(UserError, match=r"2 pages, train-volume\.tif has 3"):
        isbi2012.load(tmp_path, options())
    write(tmp_path / "train-labels.tif", np.ones((3, 6, 6), np.uint8))
    with pytest.raises(BadImage, match="label values 1; only 0 and 255"):
        isbi2012.load(tmp_path, options())
    write(tmp_path / "train-labels.tif", np.zeros((3, 6, 7), np.uint8))
    with pytest.raises(UserError, match="label is 6x7 px"):
        isbi2012.load(tmp_path, options())


# --- irpe -------------------------------------------------------------------------------------


def write_fold(root: Path, images=None, labels=None, fold: int = 0) -> None:
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        x = RNG.integers(0, 256, (count, 1, 8, 8)).astype(np.float64) / 255
        y = np.where(RNG.random((count, 1, 8, 8)) < 0.3, 255, 0)
        np.save(root / f"{part}_images_{fold}.npy", x if images is None else images(x))
        np.save(root / f"{part}_labels_{fold}.npy", y if labels is None else labels(y))


def test_irpe_arrays_keep_their_parts(tmp_path):
    write_fold(tmp_path, fold=1)
    source = irpe.load(tmp_path, options(fold=1))
    sizes = {part: len(names) for part, names in source.parts.items()}
    assert sizes == {"train": 4, "val": 1, "test": 2}
    stored = np.load(tmp_path / "test_images_1.npy")
    section = source.sections[-1]
    assert section.image.dtype == np.uint8 and section.image.shape == (8, 8, 1)
    assert (section.image[..., 0] == np.round(stored[1, 0] * 255)).all()
    truth = np.load(tmp_path / "test_labels_1.npy")[1, 0] == 255
    assert (section.label == truth).all()
    dataset = base.assemble("irpe", source, options(crop_size=8))
    assert dataset.parts["test"] == [5, 6]


@pytest.mark.parametrize(
    "images",
    [
        lambda x: np.round(x * 255).astype(np.uint8),
        lambda x: (x * 255).round()[:, 0],
        lambda x: np.moveaxis(x, 1, 3).astype(np.float32),
    ],
)
def test_irpe_array_shapes_and_types_agree(tmp_path, images):
    write_fold(tmp_path, images, labels=lambda y: (y[:, 0] > 0).astype(np.int64))
    source = irpe.load(tmp_path, options())
    assert {s.image.shape for s in source.sections} == {(8, 8, 1)}
    assert {s.image.dtype for s in source.sections} == {np.dtype(np.uint8)}
    assert {int(v) for s in source.sections for v in np.unique(s.label)} == {0, 1}


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (lambda x: x.astype(object), None, "images_0.npy"),
        (lambda x: x * np.nan, None, "NaN"),
        (lambda x: x * 3, None, "expected floating-point in"),
        (lambda x: np.repeat(x, 2, 1), None, "expected \\[N,1,h,w\\]"),
        (None, lambda y: y[:, :, :4], "label is 4x8 px"),
        (None, lambda y: y // 2, "label values 0, 127"),
        (None, lambda y: np.concatenate([y, y]), "8 labels, train_images_0.npy has 4"),
    ],
)
def test_irpe_bad_arrays(tmp_path, images, labels, words):
    write_fold(tmp_path, images, labels)
    with pytest.raises(UserError, match=words) as error:
        irpe.load(tmp_path, options())
    assert "train_" in one_line(error)


def test_irpe_missing_fold_and_folder(tmp_path):
    write_fold(tmp_path, fold=1)
    with pytest.raises(UserError, match=r"train_images_0\.npy: no such file; folds found: 1"):
        irpe.load(tmp_path, options())
    with pytest.raises(UserError, match="no iRPE data here"):
        irpe.load(tmp_path / "elsewhere", options())


def test_irpe_folders_of_crops(tmp_path):
    for name in "ab":
        write(tmp_path / f"images/{name}.tif", grey())
        write(tmp_path / f"labels/{name}.tif", np.eye(8, dtype=np.uint8) * 255)
    source = irpe.load(tmp_path, options())
    assert source.parts == {} and source.class_names == ("background", "membrane")
    assert (source.sections[0].label == np.eye(8)).all()
    write(tmp_path / "labels/c.tif", grey())
    with pytest.raises(UserError, match=r"1 labels without an image \(labels/c\.tif\)"):
        irpe.load(tmp_path, options())


# --- mouse liver ------------------------------------------------------------------------------


def test_mouse_liver_ids_and_colors_agree(tmp_path):
    ids = RNG.integers(0, 3, (8, 8), np.uint8)
    colors = np.asarray(mouse_liver.COLORS, np.uint8)[ids]
    write(tmp_path / "images/a.png", grey())
    write(tmp_path / "images/b.png", grey())
    write(tmp_path / "labels/a.png", ids)
    write(tmp_path / "labels/b.png", colors)
    source = mouse_liver.load(tmp_path, options())
    assert source.class_names == ("cytoplasm", "membrane", "nucleus")
    assert (source.sections[0].label == ids).all() and (source.sections[1].label == ids).all()


def test_mouse_liver_bad_input(tmp_path):
    write(tmp_path / "images/a.png", grey())
    label = np.zeros((8, 8, 3), np.uint8)
    label[..., 0] = 255
    label[3, 5] = (200, 200, 0)
    write(tmp_path / "labels/a.png", label)
    with pytest.raises(BadImage, match=r"1 pixels are neither green.*x=5, y=3.*\(200, 200, 0\)"):
        mouse_liver.load(tmp_path, options())
    write(tmp_path / "labels/a.png", np.full((8, 8), 3, np.uint8))
    with pytest.raises(BadImage, match="label values 3; expected class ids 0 to 2"):
        mouse_liver.load(tmp_path, options())
    with pytest.raises(UserError, match="no mouse liver data"):
        mouse_liver.load(tmp_path / "labels", options())
    assert "not public" in mouse_liver.OBTAIN


# --- wbc, nist, dsb ---------------------------------------------------------------------------


def test_wbc_own_and_source_layout_agree(tmp_path):
    image, ids = grey(9, 7, 3), RNG.integers(0, 3, (9, 7), np.uint8)
    write(tmp_path / "a/images/001.png", image)
    write(tmp_path / "a/labels/001.png", ids)
    write(tmp_path / "b/Dataset 1/001.bmp", image)
    write(tmp_path / "b/Dataset 1/001.png", np.array([0, 128, 255], np.uint8)[ids])
    own, source = (wbc.load(tmp_path / name, options()).sections[0] for name in "ab")
    assert (own.image == image).all() and (source.image == image).all()
    assert (own.label == ids).all() and (source.label == ids).all()
    assert wbc.load(tmp_path / "a", options(channels="grey")).sections[0].image.shape == (9, 7, 1)


def test_wbc_bad_input(tmp_path):
    with pytest.raises(UserError, match="no white blood cell data"):
        wbc.load(tmp_path, options())
    write(tmp_path / "Dataset 1/001.bmp", grey(8, 8, 3))
    write(tmp_path / "Dataset 1/001.png", np.full((8, 8), 3, np.uint8))
    with pytest.raises(BadImage, match="label values 3; expected 0, 128 and 255"):
        wbc.load(tmp_path, options())
    write(tmp_path / "Dataset 1/002.bmp", grey(8, 8, 3))
    with pytest.raises(UserError, match=r"1 images without a label \(Dataset 1/002\.bmp\)"):
        wbc.load(tmp_path, options())


def test_nist_keeps_sixteen_bits(tmp_path):
    image = RNG.integers(500, 15000, (8, 8), np.uint16)
    write(tmp_path / "data/images/x.tif", image)
    write(tmp_path / "data/masks/x.tif", np.eye(8, dtype=np.uint8))
    section = nist_phase16.load(tmp_path, options()).sections[0]
    assert section.image.dtype == np.uint16 and (section.image[..., 0] == image).all()
    assert (section.label == np.eye(8)).all()
    (tmp_path / "data/masks/x.tif").unlink()
    with pytest.raises(UserError, match="1 images without a label"):
        nist_phase16.load(tmp_path, options())
    with pytest.raises(UserError, match="no NIST data"):
        nist_phase16.load(tmp_path / "x", options())


def test_dsb_original_layout_and_border(tmp_path):
    """Two touching 3x3 nuclei: the border keeps their centers apart; none at the image's edge."""
    masks = np.zeros((2, 5, 8), bool)
    masks[0, 1:4, 1:4] = True
    masks[1, 1:4, 4:8] = True
    write(tmp_path / "id1/images/id1.png", grey(5, 8, 3))
    for index, mask in enumerate(masks):
        write(tmp_path / f"id1/masks/{index}.png", (mask * 255).astype(np.uint8))
    two = dsb2018.load(tmp_path, options())
    assert two.class_names == ("background", "nucleus")
    assert (two.sections[0].label == masks.any(0)).all()
    three = dsb2018.load(tmp_path, options(truth="three_class"))
    assert three.class_names == ("background", "nucleus", "border")
    assert three.sections[0].label[2].tolist() == [0, 2, 1, 2, 2, 1, 1, 1]


def test_dsb_bad_input(tmp_path):
    with pytest.raises(UserError, match="no Data Science Bowl data"):
        dsb2018.load(tmp_path, options())
    with pytest.raises(UserError, match=r"data\.truth='labels'"):
        dsb2018.load(tmp_path, options(truth="labels"))
    write(tmp_path / "images/a.png", grey())
    write(tmp_path / "labels/a.png", np.full((8, 8), 2, np.uint8))
    with pytest.raises(BadImage, match="expected class ids 0 to 1"):
        dsb2018.load(tmp_path, options())
    with pytest.raises(UserError, match="labels_3class: no such folder"):
        dsb2018.load(tmp_path, options(truth="three_class"))


def test_a_stack_where_one_image_is_expected(tmp_path):
    path = write(tmp_path / "images/a.tif", grey(2, 8, 8))
    with pytest.raises(BadImage, match="2 pages where one image was expected"):
        readers.read_image(path)


# --- the real data ----------------------------------------------------------------------------

REAL = [  # module, truth, shape, dtype, class fractions in percent
    (sstem, "masks", (320, 256, 256, 1), "uint8", (74.0589, 19.9948, 5.3877, 0.5586)),
    (sstem, "labels", (320, 256, 256, 1), "uint8", (76.9055, 17.1587, 5.3772, 0.5586)),
    (isbi2012, "masks", (120, 256, 256, 1), "uint8", (78.0369, 21.9631)),
    (wbc, "masks", (300, 128, 128, 3), "uint8", (68.8122, 18.8522, 12.3356)),
    (nist_phase16, "masks", (60, 256, 256, 1), "uint16", (70.0382, 29.9618)),
    (dsb2018, "masks", (80, 256, 256, 1), "uint8", (92.6696, 7.3304)),
    (dsb2018, "three_class", (80, 256, 256, 1), "uint8", (92.670, 5.734, 1.597)),
]


@pytest.mark.parametrize("module, truth, shape, dtype, fractions", REAL)
def test_real_data(module, truth, shape, dtype, fractions):
    data_dir = os.environ.get("FEEDSEG_DATA")
    if not data_dir:
        pytest.skip("FEEDSEG_DATA is not set")
    root = next((r for f in module.FOLDERS if (r := Path(data_dir) / f).is_dir()), None)
    if root is None:
        pytest.skip(f"none of {', '.join(module.FOLDERS)} in FEEDSEG_DATA")
    settings = options(truth=truth, crop_size=0 if module is wbc else 256)
    dataset = base.assemble("real", module.load(root, settings), settings)
    assert dataset.images.shape == shape and dataset.images.dtype == dtype
    assert dataset.labels.shape == shape[:3] and dataset.labels.dtype == np.uint8
    np.testing.assert_allclose(dataset.class_fractions() * 100, fractions, atol=6e-4)
