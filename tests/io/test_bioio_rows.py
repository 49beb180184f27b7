"""Files of microscopes through bioio: a stand-in, and CZI files where its packages are there."""

import struct
import sys

import numpy as np
import pytest

from feedseg.io import bioio_rows, calibration, images
from feedseg.io.reading import ReadOptions
from feedseg.io.source import open_source, page_axes
from feedseg.runtime.errors import BadImage, UserError
from tests.support import fake_bioio
from tests.support.fake_bioio import Scene

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 2**16, (2, 3, 4, 20, 30), np.uint16)  # T, C, Z, Y, X
NAMES = ("DAPI", "GFP", "Cy5")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file with these scenes and its path; `read` of it are the planes read."""

    def of(name: str = "a.czi", **scenes: Scene):
        path = tmp_path / name
        path.write_bytes(b"abc")
        of.read = fake_bioio.install(monkeypatch, {name: scenes})
        return path

    return of


@pytest.mark.parametrize("suffix", bioio_rows.SUFFIXES)
def test_pages_are_times_and_slices(file, suffix):
    path = file(f"a{suffix}", one=Scene(STACK, NAMES, (2.0, 0.5, 0.25)))
    expected = STACK.transpose(0, 2, 3, 4, 1).reshape(8, 20, 30, 3)
    np.testing.assert_array_equal(images.read_array(path), expected)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.rows(5, 3, 9), expected[5, 3:9])
    assert page_axes(path) == (("t", 2), ("z", 4))
    assert calibration.read_calibration(path) == (0.5, 0.25, "µm", 2.0, None)


def test_only_the_planes_that_are_asked_for_are_decoded_and_once(file):
    with open_source(file(one=Scene(STACK))) as source:
        for start in range(0, 20, 4):
            source.rows(6, start, start + 4)
    assert file.read == [dict(T=1, Z=2, C=color) for color in range(3)]


def test_channels_slices_and_scenes_by_number_and_name(file):
    other = Scene(STACK[:1, :1, :1, :5, :6])
    path = file(left=Scene(STACK, NAMES), right=other)
    how = ReadOptions(series="left", channels=("gfp", 1), z="2-3")
    expected = STACK[:, [1, 0], 1:3].transpose(0, 2, 3, 4, 1).reshape(4, 20, 30, 2)
    np.testing.assert_array_equal(images.read_array(path, how), expected)
    with open_source(path, how) as source:
        np.testing.assert_array_equal(source.rows(3, 0, 20), expected[3])
    assert images.read_array(path, ReadOptions(series="2")).shape == (1, 5, 6, 1)
    with pytest.raises(BadImage, match='2 images: 1 "left", 2 "right"; choose one with --series'):
        open_source(path)
    with pytest.raises(BadImage, match='no series \'up\'; it holds 1 "left", 2 "right"'):
        open_source(path, ReadOptions(series="up"))
    with pytest.raises(UserError, match='no channels called \'red\'; it has 1 "DAPI", 2 "GFP"'):
        open_source(path, ReadOptions(series="1", channels=("red",)))


def test_color_images(file):
    color = RNG.integers(0, 256, (1, 1, 1, 8, 9, 3), np.uint8)
    np.testing.assert_array_equal(images.read_array(file(one=Scene(color))), color[0, 0, 0][None])
    with pytest.raises(BadImage, match="channels of RGB images"):
        images.read_array(file(one=Scene(np.repeat(color, 2, 1))))


def test_what_cannot_be_read_is_one_line(file, monkeypatch):
    path = file(one=Scene(STACK))
    other = path.with_name("b.czi")
    with pytest.raises(BadImage, match=r"b\.czi: no such file"):
        images.read_array(other)
    other.write_bytes(b"abc")
    with pytest.raises(BadImage, match=r"damaged or not supported .requested: 544 bytes, actually"):
        images.read_array(other)
    with pytest.raises(BadImage, match="states its axes itself"):
        images.read_array(path, ReadOptions(axes="CYX"))
    monkeypatch.setattr(bioio_rows, "check_piece", refuse := Refuse())
    with pytest.raises(BadImage, match="a plane"):
        open_source(path)
    assert refuse.num_bytes == 20 * 30 * 2 and not file.read


class Refuse:
    """Takes the place of `limits.check_piece`."""

    def __call__(self, path, num_bytes, what, *_):
        self.num_bytes = num_bytes
        raise BadImage(f"{path}: {what}")


@pytest.mark.parametrize("missing", ["bioio", "bioio_czi"])
def test_a_missing_package_is_one_line(file, monkeypatch, missing):
    path = file(one=Scene(STACK))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'\.czi files need .*: pip install "feedseg\[bioio\]"'):
        images.read_array(path)


_KIND = 'DataType="0" ChannelTag="0" Resolution="8" NameOfMeasuredQuantity="" Min="0" Max="255"'
_KIND += ' Unit="" LUTName="Green" IsLUTInverted="0" BitInc="0"'


def lif(pixels: dict[str, np.ndarray]) -> bytes:
    """A file of Leica's with these series, [C, Z, Y, X] uint8, pixels of 0.25 µm."""
    head, tail = '<LMSDataContainerHeader Version="2"><Element Name="p">', b""
    head += '<Data><Experiment/></Data><Memory Size="0" MemoryBlockID="none"/><Children>'
    for name, stack in pixels.items():
        channels, depth, height, width = stack.shape
        sides = ((width, 1, 0.25), (height, width, 0.25), (depth, width * height, 2.0))
        starts = [number * depth * height * width for number in range(channels)]
        head += f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>'
        for start in starts:
            head += f'<ChannelDescription {_KIND} BytesInc="{start}"/>'
        head += "</Channels><Dimensions>"
        for number, (count, step, um) in enumerate(sides, 1):
            head += f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" '
            head += f'Length="{um * 1e-6 * (count - 1)}" Unit="m" BitInc="0" BytesInc="{step}"/>'
        head += "</Dimensions></ImageDescription></Image></Data>"
        head += f'<Memory Size="{stack.nbytes}" MemoryBlockID="{name}"/><Children/></Element>'
        of, size = name.encode("utf-16-le"), stack.nbytes
        tail += struct.pack("<IIBQBI", 112, len(of) + 14, 42, size, 42, len(name)) + of
        tail += stack.tobytes()
    text = (head + "</Children></Element></LMSDataContainerHeader>").encode("utf-16-le")
    return struct.pack("<IIBI", 112, len(text) + 5, 42, len(text) // 2) + text + tail


def test_a_written_lif(tmp_path):
    """With the packages themselves."""
    pytest.importorskip("bioio")
    pytest.importorskip("bioio_lif")
    stack = RNG.integers(0, 256, (2, 3, 20, 30), np.uint8)
    path = tmp_path / "a.lif"
    path.write_bytes(lif({"Liver": stack, "lung": stack[:1, :1]}))
    with pytest.raises(BadImage, match='holds 2 images: 1 "Liver", 2 "lung"; choose one'):
        images.read_array(path)
    how = ReadOptions(series="liver")
    np.testing.assert_array_equal(images.read_array(path, how), stack.transpose(1, 2, 3, 0))
    assert page_axes(path, how) == (("z", 3),)
    found = calibration.read_calibration(path, how)
    np.testing.assert_allclose(found[:2] + found[3:4], (0.25, 0.25, 2.0))


def test_a_written_czi(tmp_path):
    """With the packages themselves."""
    pytest.importorskip("bioio")
    pytest.importorskip("bioio_czi")
    czi = pytest.importorskip("pylibCZIrw").czi
    path, pixels = tmp_path / "a.czi", RNG.integers(0, 256, (2, 3, 40, 60, 1), np.uint8)
    with czi.create_czi(str(path)) as file:
        for channel, slice_ in np.ndindex(2, 3):
            file.write(pixels[channel, slice_], plane={"C": channel, "Z": slice_, "T": 0})
        file.write_metadata(
            "a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=0.25e-6, scale_y=0.5e-6, scale_z=2e-6
        )
    found = images.read_array(path)
    np.testing.assert_array_equal(found, pixels[..., 0].transpose(1, 2, 3, 0))
    how = ReadOptions(channels=("GFP",), z="max")
    np.testing.assert_array_equal(images.read_array(path, how)[0, ..., 0], pixels[1, ..., 0].max(0))
    assert page_axes(path) == (("z", 3),)
    found = calibration.read_calibration(path)
    np.testing.assert_allclose(found[:2] + found[3:4], (0.5, 0.25, 2.0))
    path.write_bytes(b"abc")
    with pytest.raises(BadImage, match="damaged or not supported"):
        images.read_array(path)
