"""Sizes of pixels as files state them: in any units, for one axis alone, or not understood."""

import json

import numpy as np
import pytest
import tifffile

from feedseg.io.calibration import micrometers, read_calibration
from feedseg.runtime import notes

PIXELS = np.zeros((2, 8, 8), np.uint8)


@pytest.fixture(autouse=True)
def texts():
    with notes.collected() as said:
        yield said


def ome(path, **fields):
    tifffile.imwrite(path, PIXELS, ome=True, metadata={"axes": "ZYX", **fields})
    return read_calibration(path)


def test_mixed_units_give_the_size_of_each_axis(tmp_path, texts):
    found = ome(
        tmp_path / "a.ome.tif",
        **{"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"},
        **{"PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"},
        **{"PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm"},
    )
    assert found[:4] == pytest.approx((0.25, 0.5, "µm", 2.0)) and not texts
    assert micrometers(found) == pytest.approx(0.25)


@pytest.mark.parametrize("axis, other", ["XY", "YX"])
def test_one_axis_alone_is_taken_for_both_and_said(tmp_path, axis, other, texts):
    fields = {f"PhysicalSize{axis}": 65.0, f"PhysicalSize{axis}Unit": "nm"}
    found = ome(tmp_path / "a.ome.tif", **fields)
    assert found[:3] == (65.0, 65.0, "nm")
    assert f"in {axis} alone, 65 nm; it is taken for {other} too" in texts[0]


@pytest.mark.parametrize(
    "fields, left",
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 3.0, "PhysicalSizeYUnit": "pixel"}, (0.5, 0.5)),
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.0}, (0.5, 0.5)),
        ({"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.0}, None),
        ({"PhysicalSizeX": -1.0, "PhysicalSizeY": 0.25}, (0.25, 0.25)),
    ],
)
def test_what_is_not_understood_is_said(tmp_path, fields, left, texts):
    found = ome(tmp_path / "a.ome.tif", **fields)
    assert (found and found[:2]) == left
    assert any("is not understood and left out" in text for text in texts)


def test_files_without_a_size_say_nothing(tmp_path, texts):
    assert ome(tmp_path / "a.ome.tif") is None
    tifffile.imwrite(tmp_path / "b.tif", PIXELS)
    tifffile.imwrite(tmp_path / "c.tif", PIXELS, resolution=(72, 72), resolutionunit=2)
    assert read_calibration(tmp_path / "b.tif") is read_calibration(tmp_path / "c.tif") is None
    assert not texts


def test_imagej_spacing_that_is_none_is_left_out(tmp_path, texts):
    options = dict(imagej=True, resolution=(4, 2), metadata={"unit": "um", "spacing": -1.0})
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    assert read_calibration(tmp_path / "a.tif")[:4] == (0.5, 0.25, "um", None)
    assert "in Z, -1.0 um, is not understood" in texts[0]


@pytest.mark.parametrize("turn, expected", [(1, (2, 1)), (3, (2, 1)), (6, (1, 2)), (8, (1, 2))])
def test_height_and_width_change_places_in_a_turned_image(tmp_path, turn, expected):
    options = dict(resolution=(1, 0.5), resolutionunit=3, software="Scanner", metadata=None)
    tags = [(274, "H", 1, turn, True)]
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[0], extratags=tags, **options)
    assert read_calibration(tmp_path / "a.tif")[:3] == (*expected, "cm")


@pytest.mark.parametrize("units, sizes", [(["micrometer", "nanometer"], (0.5, 0.25))])
def test_mixed_units_of_zarr(tmp_path, units, sizes, texts):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "a.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=PIXELS[0])
    axes = [{"name": n, "type": "space", "unit": u} for n, u in zip("yx", units, strict=True)]
    scale = [{"type": "scale", "scale": [0.5, 250.0]}]
    level = {"path": "0", "coordinateTransformations": scale}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    found = read_calibration(path)
    assert json.loads((path / ".zattrs").read_text())
    assert micrometers(found) == pytest.approx(sizes[0]) and not texts
    assert found.pixel_width / found.pixel_height == pytest.approx(sizes[1] / sizes[0])
