"""Reading and writing of image files, whole and damaged."""

import resource
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg.io import images
from feedseg.io.writers import imagej
from feedseg.io.writers import labels as labels_writer
from feedseg.runtime.errors import BadImage, SaveFailed, UserError

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (3, 20, 28), dtype=np.uint8)
NAMES, COLORS = ("cytoplasm", "membrane", "nucleus"), ((0, 0, 0), (255, 0, 0), (0, 0, 255))
MICRONS = images.Calibration(0.25, 0.2, "µm", 1.5)


def one_line_about(path: Path, error) -> bool:
    return str(path) in str(error.value) and "\n" not in str(error.value)


# Whole files


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiff_types_and_axes(tmp_path, dtype, compression):
    path = tmp_path / "a.TIF"
    data = (STACK * 1.0).astype(dtype)
    for array, options, shape in (
        (data, {"photometric": "minisblack"}, (3, 20, 28, 1)),
        (data[0], {"photometric": "minisblack"}, (1, 20, 28, 1)),
        (data.transpose(1, 2, 0), {"photometric": "rgb"}, (1, 20, 28, 3)),
        (data, {"photometric": "rgb", "planarconfig": "separate"}, (1, 20, 28, 3)),
    ):
        tifffile.imwrite(path, array, compression=compression, **options)
        read = images.read_array(path)
        assert read.shape == shape and read.dtype == dtype
        expected = data.transpose(1, 2, 0)[None] if shape[3] == 3 else data[: shape[0], ..., None]
        np.testing.assert_array_equal(read, expected)


def test_hyperstack_axes(tmp_path):
    path = tmp_path / "a.tif"
    data = RNG.integers(0, 999, (4, 2, 20, 28)).astype(np.uint16)
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(images.read_array(path), data.transpose(0, 2, 3, 1))
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "TCYX"}, photometric="minisblack")
    np.testing.assert_array_equal(images.read_array(path), data.transpose(0, 2, 3, 1))
    tifffile.imwrite(path, data[:, 0], imagej=True, metadata={"axes": "ZYX"})
    assert images.read_array(path).shape == (4, 20, 28, 1)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 300], "int16", "uint16"),
        ([0, 3], "int8", "uint8"),
        ([0, 65535], "int32", "uint16"),
        ([0.5, 2.5], "float64", "float32"),
        ([0.5, 2.5], "float16", "float32"),
        ([0, 7], ">u2", "uint16"),
    ],
)
def test_other_types_are_converted_without_loss(tmp_path, values, dtype, expected):
    path = tmp_path / "a.npy"
    np.save(path, np.tile(np.array(values, dtype), (4, 3)))
    read = images.read_array(path)
    assert read.shape == (1, 4, 6, 1) and read.dtype == expected
    assert np.unique(read).tolist() == values


def test_one_bit_images_become_zero_and_one(tmp_path):
    mask = STACK[0] > 100
    Image.fromarray(mask).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", mask)
    for name in ("a.png", "a.tif"):
        read = images.read_array(tmp_path / name)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read[0, ..., 0], mask)


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
def test_pictures(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(STACK[0]).save(path)
    np.testing.assert_array_equal(images.read_array(path)[0, ..., 0], STACK[0])
    color = STACK.transpose(1, 2, 0)
    Image.fromarray(color).save(path)
    np.testing.assert_array_equal(images.read_array(path)[0], color)


def test_jpeg(tmp_path):
    Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    read = images.read_array(tmp_path / "a.jpg")
    assert read.shape == (1, 16, 24, 3) and abs(int(read.mean()) - 90) < 3


def test_sixteen_bit_pngs_keep_all_bits(tmp_path):
    import imagecodecs

    for shape in ((20, 28), (20, 28, 3)):
        deep = RNG.integers(0, 65536, shape).astype(np.uint16)
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
        read = images.read_array(tmp_path / "a.png")
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read[0].reshape(shape), deep)


def test_palette_pngs(tmp_path):
    indices = STACK[0] % 3
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.png")[0], colors[indices])
    np.testing.assert_array_equal(images.read_label(tmp_path / "a.png")[0], indices)
    image.putpalette([5, 5, 5, 50, 50, 50, 200, 200, 200])
    image.save(tmp_path / "a.png")
    gray = np.array([5, 50, 200], np.uint8)
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.png")[0, ..., 0], gray[indices])


def test_labels_in_four_bit_grey_keep_their_ids(tmp_path):
    rows = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    packed = b"".join(b"\0" + bytes([r[0] << 4 | r[1], r[2] << 4 | r[3]]) for r in rows)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 4, 2, 4, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*p) for p in parts))
    np.testing.assert_array_equal(images.read_label(tmp_path / "a.png")[0], rows)
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.png")[0, ..., 0], rows * 17)


def test_opacity_is_dropped_only_where_full(tmp_path):
    opaque = np.dstack([*STACK, np.full((20, 28), 255, np.uint8)])
    half = opaque.copy()
    half[3, 3, 3] = 254
    for name in ("a.png", "a.tif"):
        path = tmp_path / name
        for array in (opaque, half):
            if name == "a.png":
                Image.fromarray(array).save(path)
            else:
                tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"])
            if array is opaque:
                np.testing.assert_array_equal(images.read_array(path)[0], opaque[..., :3])
            else:
                with pytest.raises(BadImage, match="transparent") as error:
                    images.read_array(path)
                assert one_line_about(path, error)


def test_read_label(tmp_path):
    path = tmp_path / "a.tif"
    ids = STACK % 3
    tifffile.imwrite(path, ids.astype(np.float32), photometric="minisblack")
    read = images.read_label(path)
    assert read.dtype.kind == "u" and (read == ids).all()
    tifffile.imwrite(path, np.repeat(ids[0][..., None], 3, -1), photometric="rgb")
    np.testing.assert_array_equal(images.read_label(path)[0], ids[0])
    tifffile.imwrite(path, ids[0].astype(np.int32) + 100_000, photometric="minisblack")
    assert images.read_label(path).dtype == np.uint32


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (STACK.transpose(1, 2, 0), "colors"),
        (STACK[0].astype(np.float32) / 2, "fractions"),
        (STACK[0].astype(np.int16) - 5, "class ids from 0"),
    ],
)
def test_labels_that_are_none(tmp_path, values, text):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack")
    with pytest.raises(BadImage, match=text) as error:
        images.read_label(path)
    assert one_line_about(path, error)


def test_list_images(tmp_path):
    for name in ("b.TIF", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    assert [p.name for p in images.list_images(tmp_path)] == ["a.png", "b.TIF"]
    assert images.list_images(tmp_path / "a.png") == [tmp_path / "a.png"]
    for path in (tmp_path / "sub.png", tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(UserError) as error:
            images.list_images(path)
        assert one_line_about(path, error)


# Damaged files


def refused(path: Path) -> str:
    with pytest.raises(BadImage) as error:
        images.read_array(path)
    assert one_line_about(path, error)
    return str(error.value)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
def test_a_cut_stack_is_refused_at_every_length(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression=compression, photometric="minisblack")
    whole = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.5, 0.7, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg", "a.npy"])
def test_cut_pictures_are_refused(tmp_path, name):
    path = tmp_path / name
    np.save(path, STACK[0]) if name == "a.npy" else Image.fromarray(STACK[0]).save(path)
    whole = path.read_bytes()
    for share in (0, 0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path)
    path.write_text("no image at all")
    refused(path)


def _tiff_header(width: int, height: int, strip: tuple[int, int], compression: int) -> bytes:
    """A one-strip 8-bit TIFF without its pixels."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
    tags += [(273, 4, strip[0]), (277, 3, 1), (278, 4, height), (279, 4, strip[1])]
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0"


def test_bombs_are_refused_before_decoding(tmp_path):
    path = tmp_path / "a.tif"
    before = resource.getrlimit(resource.RLIMIT_AS)
    for compression in (1, 8):
        path.write_bytes(_tiff_header(100_000, 100_000, (122, 10), compression) + bytes(12))
        assert "GiB" in refused(path)
    pixels = zlib.compress(bytes(600_000_000 // 8), 9) * 8  # 600 MB of zeros in 600 kB
    header = _tiff_header(30_000, 20_000, (122, len(pixels)), 8)
    path.write_bytes(header + pixels)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 300 * 2**20, before[1]))
    try:
        assert "claims 600,000,000 bytes" in refused(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space() -> int:
    """Bytes of address space in use now."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs /proc")
    return int(status.read_text().split()[0]) * resource.getpagesize()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_pixels_that_are_no_numbers(tmp_path, bad, name):
    path = tmp_path / name
    image = STACK[0].astype(np.float32)
    image[2, 3] = bad
    np.save(path, image) if name == "a.npy" else tifffile.imwrite(path, image)
    assert "1 pixels are NaN or infinite" in refused(path)


def test_pickles_are_never_loaded(tmp_path):
    path, marker = tmp_path / "a.npy", tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return Path.touch, (marker,)

    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    refused(path)
    np.save(path, np.zeros(3, [("x", "f4")]))
    refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[-1, 5]], np.int16), "-1 to 5"),
        (np.array([[0, 70_000]], np.uint32), "70000"),
        (np.array([[1 + 2j]]), "complex"),
        (np.zeros((0, 5), np.uint8), "empty"),
        (np.zeros(5, np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, text):
    path = tmp_path / "a.npy"
    np.save(path, array)
    assert text in refused(path)


def test_files_of_several_sizes_and_unknown_types(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(STACK[0], metadata=None)
        tif.write(STACK[0, :10], metadata=None)
    assert "holds 2 images: 1 (20x28 uint8), 2 (10x28 uint8); choose" in refused(path)
    with tifffile.TiffWriter(path) as tif:
        tif.write(STACK[0], metadata=None)
        tif.write(STACK[0, :10, :14], subfiletype=1, metadata=None)  # a preview
    np.testing.assert_array_equal(images.read_array(path)[0, ..., 0], STACK[0])
    (tmp_path / "a.vsi").touch()
    assert "image type" in refused(tmp_path / "a.vsi")
    assert "no such file" in refused(tmp_path / "missing.tif")


def _write(path: Path, kind: str) -> tuple[int, ...]:
    if kind == "png":
        Image.fromarray(STACK[0]).save(path)
        return (1, 20, 28, 1)
    if kind == "npy":
        np.save(path, STACK)
    elif kind == "labels":
        labels_writer.write_labels(path, STACK % 3, NAMES, COLORS, MICRONS)
    elif kind == "tiles":
        tifffile.imwrite(path, STACK, tile=(16, 16), compression="zlib", photometric="minisblack")
    else:
        codec = None if kind == "plain" else kind
        tifffile.imwrite(path, STACK, compression=codec, photometric="minisblack", rowsperstrip=7)
    return (3, 20, 28, 1)


def _damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, one bit flipped, a stretch overwritten or a stretch taken out."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 50))
    choice = rng.integers(4)
    if choice == 0:
        return data[:at]
    if choice == 1:
        return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
    if choice == 2:
        return data[:at] + rng.bytes(min(length, len(data) - at)) + data[at + length :]
    return data[:at] + data[at + length :]


@pytest.mark.parametrize(
    "kind", ["plain", "zlib", "lzw", "packbits", "zstd", "tiles", "labels", "png", "npy"]
)
def test_random_damage_gives_bad_image_or_the_right_shape(tmp_path, kind):
    suffix = {"png": ".png", "npy": ".npy"}.get(kind, ".tif")
    path = tmp_path / f"a{suffix}"
    shape = _write(path, kind)
    whole, refusals = path.read_bytes(), 0
    for seed in range(200):
        path.write_bytes(_damage(whole, np.random.default_rng(seed)))
        try:
            assert images.read_array(path).shape == shape
            images.read_calibration(path)
        except BadImage as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refusals += 1
    assert refusals > 50


# Writing


@pytest.mark.parametrize("pages", [1, 3])
def test_labels_round_trip_with_colors_names_and_calibration(tmp_path, pages):
    path = tmp_path / "new" / "a_labels.tif"
    labels = (STACK % 3)[:pages]
    labels[0, 0, 0] = 255
    labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS)
    np.testing.assert_array_equal(images.read_label(path), labels)
    assert images.read_calibration(path) == MICRONS
    with tifffile.TiffFile(path) as tif:
        page, info = tif.pages.first, tif.imagej_metadata
        assert tif.is_imagej and len(tif.pages) == pages
        assert page.photometric == tifffile.PHOTOMETRIC.PALETTE
        np.testing.assert_array_equal(page.colormap.T[:3] // 257, COLORS)
        assert (page.colormap.T[255] // 257).tolist() == list(imagej.VOID_COLOR)
        assert info["unit"] == "\\u00B5m" and info["spacing"] == 1.5
        assert "class 1: membrane (RGB 255 0 0)" in info["Info"]
        text = "0 cytoplasm, 1 membrane, 2 nucleus"
        assert info["Labels"] == (text if pages == 1 else [text] * pages)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_probabilities_round_trip(tmp_path):
    path = tmp_path / "a.tif"
    probabilities = RNG.random((2, 20, 28, 3)).astype(np.float32)
    imagej.write_probabilities(path, probabilities, NAMES, MICRONS)
    np.testing.assert_array_equal(images.read_array(path), probabilities)
    assert images.read_calibration(path) == MICRONS
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "ZCYX"
        assert tif.imagej_metadata["Labels"] == list(NAMES) * 2
    slabs = (
        page[top : top + 7, :, k] for page in probabilities for k in range(3) for top in (0, 7, 14)
    )
    imagej.write_probabilities(path, slabs, NAMES, None, probabilities.shape)
    np.testing.assert_array_equal(images.read_array(path), probabilities)
    assert images.read_calibration(path) is None


@pytest.mark.parametrize("heights", [(1,), (7, 20), (50,)])
def test_labels_come_by_slabs_of_any_height(tmp_path, monkeypatch, heights):
    monkeypatch.setattr(imagej, "STRIP_BYTES", 6 * 28)
    labels = RNG.integers(0, 3, (2, 20, 28)).astype(np.uint8)
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    labels_writer.write_labels(whole, labels, NAMES, COLORS, MICRONS)
    slabs = []
    for page in labels:
        ends = np.cumsum(np.resize(heights, 20))
        slabs += [part for part in np.split(page, ends[ends < 20]) if len(part)]
    labels_writer.write_labels(cut, iter(slabs), NAMES, COLORS, MICRONS, labels.shape)
    assert cut.read_bytes() == whole.read_bytes()
    np.testing.assert_array_equal(images.read_label(cut), labels)
    with tifffile.TiffFile(cut) as tif:
        assert tif.pages[0].rowsperstrip == 6 and tif.imagej_metadata["slices"] == 2


def test_labels_beyond_classic_tiff(tmp_path, monkeypatch):
    monkeypatch.setattr(imagej, "CLASSIC_LIMIT", 1000)
    path = tmp_path / "a.tif"
    labels = RNG.integers(0, 3, (2, 20, 28)).astype(np.uint8)
    labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS)
    np.testing.assert_array_equal(images.read_label(path), labels)
    assert images.read_calibration(path) == MICRONS
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff and tif.is_ome
        assert tuple(tif.pages[0].colormap[:, 1] // 257) == COLORS[1]


def test_probabilities_beyond_classic_tiff(tmp_path, monkeypatch):
    monkeypatch.setattr(imagej, "CLASSIC_LIMIT", 1000)
    path = tmp_path / "a.tif"
    probabilities = RNG.random((2, 20, 28, 3)).astype(np.float32)
    imagej.write_probabilities(path, probabilities, NAMES, MICRONS)
    np.testing.assert_array_equal(images.read_array(path), probabilities)
    assert images.read_calibration(path) == MICRONS
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff and tif.is_ome and "membrane" in tif.ome_metadata


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (10000, 5000), "resolutionunit": "CENTIMETER"}, (0.0002, 0.0001, "cm")),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (0, 0)}, None),
        ({}, None),
    ],
)
def test_calibration_of_plain_tiffs(tmp_path, options, expected):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], **options)
    found = images.read_calibration(path)
    assert found == (expected and images.Calibration(*expected))


def test_calibration_of_ome(tmp_path):
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.4, "PhysicalSizeXUnit": "nm"}
    metadata = {"axes": "ZYX", **sizes, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(path, STACK, metadata=metadata, photometric="minisblack")
    assert images.read_calibration(path) == images.Calibration(0.4, 0.3, "nm", None)
    tifffile.imwrite(path, STACK, metadata={"axes": "ZYX"}, photometric="minisblack")
    assert images.read_calibration(path) is None


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A limit on the file size fails like a full disk."""
    path = tmp_path / "a.tif"
    noise = RNG.integers(0, 256, (4, 200, 200)).astype(np.uint8)
    labels_writer.write_labels(path, STACK % 3, NAMES, COLORS)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        for write in (
            lambda: labels_writer.write_labels(path, noise, NAMES, COLORS),
            lambda: imagej.write_probabilities(path, noise[..., None] / 255, ("a",)),
        ):
            with pytest.raises(SaveFailed) as error:
                write()
            assert one_line_about(path, error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_an_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.tif"
    with pytest.raises(SaveFailed) as error:
        labels_writer.write_labels(path, STACK % 3, NAMES, COLORS)
    assert one_line_about(path, error)
