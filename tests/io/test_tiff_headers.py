"""TIFF files whose header, byte counts and OME-XML contradict one another."""

import re
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg.io import images, source
from feedseg.runtime import memory
from feedseg.runtime.errors import BadImage

STACK = np.arange(8 * 16 * 24, dtype=np.uint16).reshape(8, 16, 24)


def changed(path, tags: dict, page: int = 0):
    """The file with the first value of tags of one page overwritten."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name, value in tags.items():
            tif.pages[page].tags[name].overwrite(value)
    return path


def described(path, old: str, new: str):
    """The OME-XML with text that matches `old` replaced."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["ImageDescription"]
        text, count = re.subn(old, new, tag.value)
        assert count
        tag.overwrite(text)
    return path


def refused(path, reason: str) -> str:
    with pytest.raises(BadImage, match=reason) as error:
        images.read_array(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def ome(tmp_path):
    """Four slices of two channels."""
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["red", "green"]}}
    tifffile.imwrite(path, STACK.reshape(4, 2, 16, 24), metadata=metadata, ome=True)
    return path


def test_whole_files_are_read(ome, tmp_path):
    assert images.read_array(ome).shape == (4, 16, 24, 2)
    slices = {"imagej": True, "metadata": {"axes": "ZYX"}}
    for name, options in {"imagej": slices, "plain": {"metadata": None}}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", STACK, **options)
        np.testing.assert_array_equal(images.read_array(tmp_path / f"{name}.tif")[..., 0], STACK)


@pytest.mark.parametrize("size", ["SizeZ", "SizeT", "SizeC"])
def test_a_number_of_planes_that_the_file_has_not_costs_nothing(ome, size):
    described(ome, rf'{size}="\d+"', f'{size}="100000000"')
    tracemalloc.start()
    start = time.monotonic()
    refused(ome, r"announces \d{3},\d{3},\d{3}(,\d{3})* planes, the file has 8")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20 and time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (r'SizeC="2"( .*?)SizeZ="4"', r'SizeC="1"\1SizeZ="8"', "2 channels where SizeC is 1"),
        (r'Type="uint16"', 'Type="uint8"', "type uint8, the TIFF's are uint16"),
        (r'(<TiffData[^>]*?)IFD="0"', r'\1FirstZ="9" IFD="0"', "a plane at Z 9 of 4"),
    ],
)
def test_ome_xml_that_contradicts_the_pixels(ome, old, new, reason):
    refused(described(ome, old, new), reason)


@pytest.mark.parametrize("options", [{"imagej": True}, {"metadata": None}, {}])
def test_pixels_do_not_start_in_the_header(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[:1] if not options else STACK, **options)
    refused(changed(path, {"StripOffsets": 0}), "incomplete|damaged")


@pytest.mark.parametrize("options", [{"imagej": True}, {"metadata": None}, {}, {"ome": True}])
@pytest.mark.parametrize("pages", [1, 8])
def test_bits_that_contradict_the_byte_counts(tmp_path, options, pages):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[:pages].squeeze(), **options)
    with tifffile.TiffFile(path) as tif:
        count = len(tif.pages)
    for page in range(count):
        changed(path, {"BitsPerSample": 8}, page)
    refused(path, "wrong number of bytes|incomplete|damaged|type uint16")


# What this machine can hold ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["strip.tif", "plain.tif", "a.png"])
def test_pixels_that_the_memory_of_this_machine_does_not_hold(tmp_path, monkeypatch, name):
    """Read as a whole all are refused; by rows, only where a piece is as large."""
    path, pixels = tmp_path / name, np.arange(512 * 512).reshape(512, 512).astype(np.uint8)
    if name == "a.png":
        Image.fromarray(pixels).save(path)
    else:
        packed = {"compression": "zlib", "rowsperstrip": 512} if name == "strip.tif" else {}
        tifffile.imwrite(path, pixels, **packed)
    monkeypatch.setattr(memory, "memory", lambda: 3 * pixels.nbytes - 3)
    refused(path, "decoded at once, the limit is .* here; split the image")
    if name == "plain.tif":
        with source.open_source(path) as opened:
            np.testing.assert_array_equal(opened.rows(0, 8, 16)[..., 0], pixels[8:16])
        return
    with pytest.raises(BadImage, match="decoded at once"), source.open_source(path):
        pass
