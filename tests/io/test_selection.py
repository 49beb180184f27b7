"""Series, slices, channels and channel files that are chosen of files."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg.io import calibration, channel_files, images, selection
from feedseg.io.reading import ReadOptions, listed
from feedseg.io.source import open_source, page_axes
from feedseg.runtime.errors import BadImage, UserError

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (2, 3, 20, 30), np.uint8)  # C, Z, Y, X


def read(path, how) -> np.ndarray:
    """At once and by rows, which must be equal."""
    array = images.read_array(path, how)
    with open_source(path, how) as source:
        half = source.height // 2
        spans = ((0, half), (half, source.height))
        pages = [
            np.concatenate([source.rows(page, *span) for span in spans])
            for page in range(source.count)
        ]
        assert source.count == len(array) and source.dtype == array.dtype
    np.testing.assert_array_equal(pages, array)
    axes = page_axes(path, how)
    assert np.prod([size for _, size in axes], initial=1) == len(array)
    return array


@pytest.fixture
def several(tmp_path):
    """An OME-TIFF of a stack, an image and a pyramid."""
    path = tmp_path / "a.ome.tif"
    small, large = STACK[0, 0], RNG.integers(0, 2**16, (64, 96), np.uint16)
    with tifffile.TiffWriter(path, ome=True) as file:
        names = {"Name": ["DAPI", "GFP"]}
        sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        file.write(STACK, metadata={"axes": "CZYX", "Name": "Liver", "Channel": names, **sizes})
        sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        file.write(small, metadata={"axes": "YX", "Name": "lung", **sizes})
        tiles = dict(tile=(32, 32))
        file.write(large, subifds=1, metadata={"axes": "YX", "Name": "slide"}, **tiles)
        file.write(large[::2, ::2], subfiletype=1, **tiles)
    return path, small, large


def test_series_of_a_tiff(several):
    path, small, large = several
    stack = STACK.transpose(1, 2, 3, 0)
    for series, expected in (("1", stack), ("liver", stack), ("2", small), ("slide", large)):
        found = read(path, ReadOptions(series=series))
        np.testing.assert_array_equal(found.squeeze(), expected)
    for series, pixel in (("liver", 0.25), ("lung", 0.5)):
        assert calibration.read_calibration(path, ReadOptions(series=series)).pixel_width == pixel
    assert calibration.read_calibration(path, ReadOptions(series="slide")) is None


@pytest.mark.parametrize("work", [images.read_array, open_source, page_axes])
def test_several_series_are_listed(several, work):
    text = r'holds 3 images: 1 "Liver" \(2x3x20x30 uint8\), 2 "lung" \(20x30 uint8\), 3 "slide"'
    with pytest.raises(BadImage, match=text + r" \(64x96 uint16\); choose one with --series"):
        work(several[0])
    for series in ("0", "4", "heart"):
        with pytest.raises(BadImage, match=f'no series {series!r}; it holds 1 "Liver", 2 "lung"'):
            work(several[0], ReadOptions(series=series))


def test_a_file_of_one_image_has_a_first_series(tmp_path):
    Image.fromarray(STACK[0, 0]).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", STACK[0, 0])
    for name in ("a.png", "a.npy"):
        assert len(read(tmp_path / name, ReadOptions(series="1"))) == 1
        with pytest.raises(BadImage, match="no series '2'"):
            images.read_array(tmp_path / name, ReadOptions(series="2"))


def test_the_largest_level_of_a_pyramid_is_read(tmp_path):
    whole = np.tile(STACK[0, 0], (6, 6))
    for name in ("a.tif", "a.svs"):
        with tifffile.TiffWriter(tmp_path / name) as file:
            for step in (1, 2, 4):
                options = dict(tile=(16, 16), subfiletype=int(step > 1), metadata=None)
                file.write(whole[::step, ::step], **options)
        np.testing.assert_array_equal(read(tmp_path / name, ReadOptions())[0, ..., 0], whole)


def test_a_slide_is_read_without_its_label_and_its_thumbnail(tmp_path):
    path = tmp_path / "a.svs"
    color = RNG.integers(0, 256, (96, 128, 3), np.uint8)
    with tifffile.TiffWriter(path) as file:
        text = "Aperio Image Library v11\n128x96 (32x32) RGB|AppMag = 20|MPP = 0.4990"
        options = dict(photometric="rgb", metadata=None, software="")
        file.write(color, tile=(32, 32), description=text, **options)
        file.write(color[::4, ::4], description="Aperio\nthumbnail", **options)
        file.write(color[::2, ::2], tile=(32, 32), description="Aperio\n64x48", **options)
        file.write(color[:9, :9], description="Aperio\nlabel 9x9", subfiletype=1, **options)
        file.write(color[:8, :30], description="Aperio\nmacro 30x8", subfiletype=9, **options)
    with tifffile.TiffFile(path) as file:
        assert file.is_svs and len(file.series) > 1
    np.testing.assert_array_equal(read(path, ReadOptions())[0], color)
    assert calibration.read_calibration(path) == (0.499, 0.499, "µm", None, None)


def test_a_confocal_stack_of_zeiss(tmp_path):
    """LSM: every second page is a preview."""
    path, stack = tmp_path / "a.lsm", RNG.integers(0, 256, (3, 3, 20, 30), np.uint8)  # Z, C, Y, X
    fields = [(name, f"<{kind}") for name, kind in tifffile.TIFF.CZ_LSMINFO]
    info = np.zeros((), fields)
    sizes = dict(DimensionX=30, DimensionY=20, DimensionZ=3, DimensionChannels=3, DimensionTime=1)
    pixels = dict(VoxelSizeX=0.25e-6, VoxelSizeY=0.5e-6, VoxelSizeZ=2e-6)
    magic = dict(MagicNumber=67127628, StructureSize=info.nbytes)
    for name, value in (magic | sizes | pixels).items():
        info[name] = value
    with tifffile.TiffWriter(path, byteorder="<") as file:
        for number, page in enumerate(stack):
            tags = [] if number else [(34412, 7, info.nbytes, info.tobytes(), True)]
            kind = dict(photometric="minisblack", planarconfig="separate", software="")
            file.write(page, metadata=None, extratags=tags, **kind)
            preview = np.zeros((8, 12, 3), np.uint8)
            file.write(preview, photometric="rgb", subfiletype=1, metadata=None, software="")
    np.testing.assert_array_equal(read(path, ReadOptions()), stack.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(read(path, ReadOptions(z="2"))[0, ..., 1], stack[1, 1])
    assert page_axes(path) == (("z", 3),)
    assert calibration.read_calibration(path) == (0.5, 0.25, "µm", 2.0, None)
    with pytest.raises(UserError, match="'GFP' asked for, it names none"):
        read(path, ReadOptions(channels=("GFP",)))


@pytest.mark.parametrize(
    "z, expected, axes",
    [
        ("2", STACK[:, 1:2], ()),
        ("2-3", STACK[:, 1:], (("z", 2),)),
        ("max", STACK.max(1, keepdims=True), ()),
    ],
)
def test_slices(tmp_path, z, expected, axes):
    tifffile.imwrite(
        tmp_path / "a.tif", STACK.swapaxes(0, 1), imagej=True, metadata={"axes": "ZCYX"}
    )
    np.save(tmp_path / "a.npy", STACK.transpose(1, 2, 3, 0))
    for name in ("a.tif", "a.npy"):
        how = ReadOptions(z=z).checked()
        np.testing.assert_array_equal(read(tmp_path / name, how), expected.transpose(1, 2, 3, 0))
        assert page_axes(tmp_path / name, how) == axes


def test_slices_of_a_movie():
    groups, axes = selection.pages("a", (("t", 2), ("z", 3)), "2-3")
    assert groups.tolist() == [[1], [2], [4], [5]] and axes == (("t", 2), ("z", 2))
    groups, axes = selection.pages("a", (("z", 3), ("t", 2)), "max")
    assert groups.tolist() == [[0, 2, 4], [1, 3, 5]] and axes == (("t", 2),)
    groups, axes = selection.pages("a", (("t", 2),), "1")
    assert groups.tolist() == [[0], [1]] and axes == (("t", 2),)


def test_channels_by_name(several, tmp_path):
    path, *_ = several
    found = read(path, ReadOptions(series="1", channels=("gfp",)))
    np.testing.assert_array_equal(found[..., 0], STACK[1])
    labels = ["DAPI", "GFP"] * 3
    metadata = {"axes": "ZCYX", "Labels": labels}
    tifffile.imwrite(tmp_path / "b.tif", STACK.swapaxes(0, 1), imagej=True, metadata=metadata)
    found = read(tmp_path / "b.tif", ReadOptions(channels=("GFP", 1)))
    np.testing.assert_array_equal(found, STACK[::-1].transpose(1, 2, 3, 0))


@pytest.mark.parametrize(
    "how, text",
    [
        (dict(channels=("red",)), "channel 'red' asked for, it names none; give their numbers"),
        (dict(channels=(2,)), r"channel\(s\) 2 asked for, it has 1"),
        (dict(channels=(0,)), r"channel\(s\) 0 asked for, it has 1"),
        (dict(z="3-4"), r"slice\(s\) 3-4 asked for, it has 3"),
    ],
)
@pytest.mark.parametrize("work", [images.read_array, open_source])
def test_what_a_file_does_not_have(tmp_path, work, how, text):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], photometric="minisblack")
    with pytest.raises(UserError, match=text):
        work(tmp_path / "a.tif", ReadOptions(**how))


@pytest.mark.parametrize("z", ["0", "3-2", "-1", "all", "1-", "1.5", "1,2"])
def test_slices_that_are_none(z):
    with pytest.raises(UserError, match="counted from 1, or max"):
        ReadOptions(z=z).checked()


def test_lists_of_channels():
    assert listed("2") == (2,) and listed(" DAPI, 3 ,") == ("DAPI", 3) and listed("") == ()


ENDINGS = ("_DAPI", "_w2")


@pytest.fixture
def separate(tmp_path):
    for ending, pixels in zip(ENDINGS, STACK, strict=True):
        tifffile.imwrite(tmp_path / f"a{ending}.tif", pixels, photometric="minisblack")
    return tmp_path / "a_DAPI.tif"


def test_channel_files_are_stacked(separate):
    how = ReadOptions(channel_files=ENDINGS).checked()
    np.testing.assert_array_equal(read(separate, how), STACK.transpose(1, 2, 3, 0))
    how = how._replace(channels=("W2",), z="2")
    np.testing.assert_array_equal(read(separate, how)[0, ..., 0], STACK[1, 1])
    assert not images.is_color(separate, how)


@pytest.mark.parametrize("work", [images.read_array, open_source])
def test_channel_files_that_do_not_fit(separate, work):
    how, other = ReadOptions(channel_files=ENDINGS), separate.with_name("a_w2.tif")
    with pytest.raises(BadImage, match=r"a_w2\.tif: does not end in _DAPI"):
        work(other, how)
    tifffile.imwrite(other, STACK[1, :, :9], photometric="minisblack")
    with pytest.raises(BadImage, match=r"a_w2\.tif: 3x9x30 uint8 .*a_DAPI\.tif is 3x20x30 uint8"):
        work(separate, how)
    other.unlink()
    with pytest.raises(BadImage, match=r"a_w2\.tif: no such file, the channel a_w2\.tif of a_DAPI"):
        work(separate, how)


def test_the_first_channel_file_stands_for_all(tmp_path):
    paths = [tmp_path / name for name in ("a_0.tif", "a_1.tif", "b_1.tif", "c.tif")]
    assert channel_files.firsts(paths, ("_0", "_1")) == [paths[0], *paths[2:]]
    assert channel_files.firsts(paths, ()) == paths
    assert channel_files.stem("a_0", ("_0", "_1")) == "a" and channel_files.stem("a_0", ()) == "a_0"


@pytest.mark.parametrize("endings", [("_0",), ("_0", "_0"), ("_0", "x/_1")])
def test_endings_that_are_none(endings):
    with pytest.raises(UserError, match="endings of at least two files' names"):
        ReadOptions(channel_files=endings).checked()
