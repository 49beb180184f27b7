"""Orientation, MinIsWhite and palettes: images and labels as other programs show them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg.io import images
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.source import open_source
from feedseg.runtime import notes
from feedseg.runtime.errors import BadImage, UserError

RNG = np.random.default_rng(0)
SHOWN = RNG.integers(0, 200, (6, 9), np.uint8)  # as a viewer shows it
STORED = ReadOptions(interpret="stored")
DISPLAYED = ReadOptions(interpret="displayed")
# what is stored for each orientation, so that `SHOWN` is shown
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, -1),
}


def write(path, array, orientation=1, **options):
    """A TIFF file of a program that means what its tags say."""
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, array, software="Scanner 3", metadata=None, extratags=tags, **options)
    return path


def both(path, how=AS_STATED):
    """The one page of a file, whole and by rows, which must be equal."""
    whole = images.read_array(path, how)[0]
    with open_source(path, how) as source:
        parts = [source.rows(0, row, row + 1) for row in range(source.height)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    return whole[..., 0] if whole.shape[2] == 1 else whole


@pytest.fixture(autouse=True)
def remarks():
    with notes.collected() as texts:
        yield texts


@pytest.mark.parametrize("orientation", TURNS)
def test_images_and_labels_are_turned_as_their_file_says(tmp_path, orientation, remarks):
    stored = np.ascontiguousarray(TURNS[orientation](SHOWN))
    tif = write(tmp_path / "a.tif", stored, orientation)
    png = tmp_path / "a.png"
    picture = Image.fromarray(stored)
    exif = picture.getexif()
    exif[274] = orientation
    picture.save(png, exif=exif)
    for path in (tif, png):
        np.testing.assert_array_equal(both(path), SHOWN)
        np.testing.assert_array_equal(images.read_label(path)[0], SHOWN)
        np.testing.assert_array_equal(both(path, STORED), stored)
    assert len(remarks) == (orientation > 1)
    assert not remarks or "--interpret stored" in remarks[0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_gray_values_with_0_as_white_are_inverted(tmp_path, kind, remarks):
    top = np.iinfo(kind).max
    image = (SHOWN.astype(kind) * (top // 255)).astype(kind)
    path = write(tmp_path / "a.tif", top - image, photometric="miniswhite")
    np.testing.assert_array_equal(both(path), image)
    np.testing.assert_array_equal(both(path, STORED), top - image)
    assert "MinIsWhite" in remarks[0]


def test_masks_with_0_as_white(tmp_path):
    mask = SHOWN > 150
    one_bit = write(tmp_path / "a.tif", ~mask, photometric="miniswhite")
    assert tifffile.TiffFile(one_bit).pages[0].bitspersample == 1
    eight = np.where(mask, 0, 255).astype(np.uint8)
    eight = write(tmp_path / "b.tif", eight, photometric="miniswhite")
    for path in (one_bit, eight):
        np.testing.assert_array_equal(images.read_label(path)[0] > 0, mask)
    ids = write(tmp_path / "c.tif", SHOWN % 4, photometric="miniswhite")
    np.testing.assert_array_equal(images.read_label(ids)[0], SHOWN % 4)  # class ids


@pytest.mark.parametrize("program", [dict(imagej=True), dict(), dict(ome=True)])
def test_values_that_only_a_table_of_the_program_inverts_are_as_stored(tmp_path, program, remarks):
    mask = np.where(SHOWN > 150, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="miniswhite", **program)
    path = tmp_path / "a.tif"
    if not program:  # tifffile calls all 1-bit images MinIsWhite
        tifffile.imwrite(path, mask > 0)
        mask = mask // 255
    assert tifffile.TiffFile(path).pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE
    np.testing.assert_array_equal(images.read_label(path)[0], mask)
    np.testing.assert_array_equal(both(path), mask)
    assert "inverted with --interpret displayed" in remarks[0]
    np.testing.assert_array_equal(both(path, DISPLAYED), mask.max() - mask)


def palette(colors) -> np.ndarray:
    """A color map of 256 RGB colors in 8 bit, as TIFF stores it."""
    return np.ascontiguousarray(np.asarray(colors).T.astype(np.uint16) * 257)


def test_palettes_are_applied_to_images_and_not_to_labels(tmp_path):
    gray = palette([[255 - i] * 3 for i in range(256)])
    path = write(tmp_path / "a.tif", SHOWN, photometric="palette", colormap=gray)
    np.testing.assert_array_equal(both(path), 255 - SHOWN)
    np.testing.assert_array_equal(images.read_label(path)[0], SHOWN)
    colors = RNG.integers(0, 256, (256, 3))
    path = write(tmp_path / "b.tif", SHOWN, photometric="palette", colormap=palette(colors))
    np.testing.assert_array_equal(both(path), colors[SHOWN])
    np.testing.assert_array_equal(both(path, STORED), SHOWN)


@pytest.mark.parametrize("measured", [True, False])
def test_palettes_of_brightness_are_for_the_screen(tmp_path, measured, remarks):
    """A green look-up table of a microscope; any table of ImageJ."""
    if measured:
        colors = palette(RNG.integers(0, 256, (256, 3)))
        options = dict(imagej=True, colormap=colors)
        tifffile.imwrite(tmp_path / "a.tif", SHOWN, photometric="palette", **options)
    else:
        green = palette([[0, i, 0] for i in range(256)])
        write(tmp_path / "a.tif", SHOWN, photometric="palette", colormap=green)
    np.testing.assert_array_equal(both(tmp_path / "a.tif"), SHOWN)
    assert "applied with --interpret displayed" in remarks[0]


def test_what_is_decided_is_said_once_for_a_folder(tmp_path, remarks):
    for name in "abc":
        images.read_array(write(tmp_path / f"{name}.tif", SHOWN, photometric="miniswhite"))
    assert len(remarks) == 1 and "a.tif" in remarks[0]


@pytest.mark.parametrize("shape", [(2, 20, 30), (20, 30, 2)])
def test_axes_are_named_where_a_file_states_none(tmp_path, shape):
    array = RNG.integers(0, 256, shape, np.uint8)
    axes = "CYX" if shape[0] == 2 else "YXC"
    pixels = array.transpose(1, 2, 0) if shape[0] == 2 else array
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="minisblack")
    np.save(tmp_path / "c.npy", array)
    for name in ("a.tif", "b.tif", "c.npy"):
        path = tmp_path / name
        np.testing.assert_array_equal(both(path, ReadOptions(axes)), pixels)
        if shape[0] == 2:
            assert images.read_array(path).shape == (2, 20, 30, 1)  # two pages, as Fiji shows it
        else:
            with pytest.raises(BadImage, match="--axes YXC or PYX"):
                images.read_array(path)


def test_axes_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6), np.uint8))
    Image.fromarray(SHOWN).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="axes YX name 2"):
        images.read_array(tmp_path / "a.npy", ReadOptions("YX"))
    with pytest.raises(BadImage, match="leave out --axes"):
        images.read_array(tmp_path / "a.png", ReadOptions("YX"))
    for axes, text in (("YC", "Y and X"), ("YXX", "once"), ("YXQ", "use Y, X, C")):
        with pytest.raises(UserError, match=text):
            ReadOptions(axes).checked()
    with pytest.raises(UserError, match="auto, stored, displayed"):
        ReadOptions(interpret="raw").checked()
