"""Label images as OME-TIFF."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tifffile

from feedseg.io import images
from feedseg.io.calibration import Calibration, ngff_unit, symbol
from feedseg.io.source import page_axes
from feedseg.io.writers import imagej
from feedseg.io.writers import labels as labels_writer
from feedseg.io.writers.formats import formats, suffix
from feedseg.runtime.errors import BadImage

RNG = np.random.default_rng(0)
NAMES = ("background", "wall & <lumen>", "Zellkern, groß")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 120, 255))
MICRONS = Calibration(0.5, 0.25, "micron", 2.0)
LABELS = RNG.integers(0, 3, (6, 40, 28)).astype(np.uint8)


def description(path) -> tuple[dict, dict, dict]:
    """Attributes of the pixels, class names and class colors in the OME-XML."""
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        root = ElementTree.fromstring(file.ome_metadata)
    space = {"o": root.tag[1:].partition("}")[0]}
    tables = {}
    for table in root.findall(".//o:MapAnnotation", space):
        entries = {entry.get("K"): entry.text for entry in table.findall(".//o:M", space)}
        tables[table.get("Namespace")] = entries
        assert root.find(f".//o:Image/o:AnnotationRef[@ID='{table.get('ID')}']", space) is not None
    pixels = root.find(".//o:Pixels", space)
    return dict(pixels.attrib), tables["feedseg/class-names"], tables["feedseg/class-colors"]


def test_labels_round_trip_with_names_colors_and_calibration(tmp_path):
    path = tmp_path / "new" / "a_labels.ome.tif"
    labels_writer.write_labels(path, LABELS, NAMES, COLORS, MICRONS)
    np.testing.assert_array_equal(images.read_label(path), LABELS)
    assert images.read_calibration(path) == MICRONS._replace(unit="µm")
    pixels, names, colors = description(path)
    assert pixels["PhysicalSizeXUnit"] == "µm" and pixels["PhysicalSizeZ"] == "2.0"
    assert names == {"0": NAMES[0], "1": NAMES[1], "2": NAMES[2]}
    assert colors == {"0": "#000000", "1": "#FF0000", "2": "#0078FF"}
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert file.series[0].axes == "ZYX" and not file.is_bigtiff
        assert page.photometric == tifffile.PHOTOMETRIC.PALETTE
        np.testing.assert_array_equal(page.colormap.T[:3] // 257, COLORS)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("height", [1, 7, 40])
def test_slabs_give_the_same_file(tmp_path, monkeypatch, height):
    monkeypatch.setattr(imagej, "STRIP_BYTES", 6 * 28)
    slabs = (page[top : top + height] for page in LABELS for top in range(0, 40, height))
    paths = [tmp_path / "whole" / "a.ome.tif", tmp_path / "cut" / "a.ome.tif"]
    for path, labels in zip(paths, (LABELS, slabs), strict=True):
        labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS, LABELS.shape)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("axes", [(("t", 2), ("z", 3)), (("z", 3), ("t", 2)), (("t", 6),), None])
def test_axes_of_the_pages_are_kept(tmp_path, axes):
    path = tmp_path / "a.ome.tif"
    labels_writer.write_labels(path, LABELS, NAMES, COLORS, MICRONS, None, axes)
    np.testing.assert_array_equal(images.read_label(path), LABELS)
    assert page_axes(path) == (axes or (("z", 6),))
    pixels, *_ = description(path)
    sizes = dict(axes or (("z", 6),))
    assert pixels["SizeT"] == str(sizes.get("t", 1)) and pixels["SizeZ"] == str(sizes.get("z", 1))
    assert ("PhysicalSizeZ" in pixels) == ("z" in sizes)


def test_the_interval_of_times_is_kept_by_every_format(tmp_path):
    calibration = MICRONS._replace(unit="µm", frame_interval=0.5)
    for name in ("a.ome.tif", "a.tif", "a.ome.zarr"):
        if name.endswith("zarr"):
            pytest.importorskip("zarr", reason="needs the extra `zarr`")
        axes = (("t", 2), ("z", 3))
        labels_writer.write_labels(tmp_path / name, LABELS, NAMES, COLORS, calibration, None, axes)
        assert images.read_calibration(tmp_path / name) == calibration
        assert page_axes(tmp_path / name) == axes


def test_a_single_page(tmp_path):
    path = tmp_path / "a.ome.tif"
    labels_writer.write_labels(path, LABELS[:1], NAMES, COLORS)
    np.testing.assert_array_equal(images.read_label(path), LABELS[:1])
    assert images.read_calibration(path) is None and page_axes(path) == ()


def test_bigtiff_only_where_needed_and_then_with_the_names(tmp_path, monkeypatch):
    monkeypatch.setattr(imagej, "CLASSIC_LIMIT", 1000)
    for name in ("a.ome.tif", "a.tif"):
        labels_writer.write_labels(tmp_path / name, LABELS, NAMES, COLORS, MICRONS)
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.is_bigtiff
        assert description(tmp_path / name)[1]["1"] == NAMES[1]
        np.testing.assert_array_equal(images.read_label(tmp_path / name), LABELS)


def test_a_unit_that_ome_does_not_know_is_left_out(tmp_path):
    path = tmp_path / "a.ome.tif"
    labels_writer.write_labels(path, LABELS, NAMES, COLORS, MICRONS._replace(unit="furlong"))
    assert not [key for key in description(path)[0] if key.startswith("Physical")]
    assert symbol("\u03bcm") == symbol("um") == symbol("micrometer") == "µm"
    assert (symbol("pixel"), ngff_unit("pixel"), ngff_unit("inch")) == (None, None, "inch")


def test_the_name_chooses_the_format(tmp_path):
    for form in formats():
        if form == "ome-zarr":
            pytest.importorskip("zarr", reason="needs the extra `zarr`")
        labels_writer.write_labels(tmp_path / f"a_labels{suffix(form)}", LABELS, NAMES, COLORS)
    for path in images.list_images(tmp_path):
        np.testing.assert_array_equal(images.read_label(path), LABELS)
    with tifffile.TiffFile(tmp_path / "a_labels.tif") as file:
        assert file.is_imagej and not file.is_ome


def test_a_failure_leaves_nothing_behind(tmp_path):
    def failing():
        yield LABELS[0]
        raise BadImage("b.tif: damaged")

    with pytest.raises(BadImage):
        labels_writer.write_labels(
            tmp_path / "a.ome.tif", failing(), NAMES, COLORS, None, LABELS.shape
        )
    assert not list(tmp_path.iterdir())


def test_pages_of_other_tiffs(tmp_path):
    path = tmp_path / "a.tif"
    shapes = {"TZCYX": (("t", 3), ("z", 2)), "ZCYX": (("z", 6),), "TYX": (("t", 6),)}
    for axes, expected in shapes.items():
        sizes = {"T": dict(expected).get("t", 1), "Z": dict(expected).get("z", 1), "C": 2}
        array = np.zeros([sizes.get(a, 20) for a in axes], np.uint8)
        tifffile.imwrite(path, array, imagej=True, metadata={"axes": axes})
        assert page_axes(path) == expected
    tifffile.imwrite(path, LABELS, photometric="minisblack")
    assert page_axes(path) == (("z", 6),)
    np.save(tmp_path / "a.npy", LABELS)
    assert page_axes(tmp_path / "a.npy") == (("z", 6),)
