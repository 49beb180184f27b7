"""Images read by slabs of rows: the same pixels, refusals and limits as of whole files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg.io import images, normalize, percentiles, tiff, tiff_rows
from feedseg.io.block_cache import BlockCache
from feedseg.io.source import ImageSource, open_source
from feedseg.runtime.errors import BadImage, UserError

RNG = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(70), np.arange(53))
GREY = np.stack([SMOOTH * 3 + i for i in range(6)]).astype(np.uint16)
COLOUR = np.stack([SMOOTH, SMOOTH + 40, 2 * SMOOTH], -1).astype(np.uint8)
GREYS, RGB = {"photometric": "minisblack"}, {"photometric": "rgb"}
TILES, PLANAR = {"tile": (32, 16)}, {"planarconfig": "separate"}

LAYOUTS = {
    "one block": (GREY, GREYS),
    "strips": (GREY, {**GREYS, "rowsperstrip": 7, "metadata": None}),
    "zlib": (GREY, {**GREYS, "rowsperstrip": 7, "compression": "zlib"}),
    "lzw, one strip": (GREY, {**GREYS, "rowsperstrip": 70, "compression": "lzw"}),
    "zstd": (GREY, {**GREYS, "rowsperstrip": 1, "compression": "zstd"}),
    "packbits": (GREY, {**GREYS, "compression": "packbits"}),
    "predictor": (GREY, {**GREYS, "compression": "zlib", "predictor": True, "rowsperstrip": 9}),
    "float": (GREY.astype(np.float32) / 7 - 9, {**GREYS, "compression": "lzw"}),
    "float predictor": (
        GREY.astype(np.float32) / 7,
        {**GREYS, **TILES, "compression": "zlib", "predictor": 3},
    ),
    "double": (GREY.astype(np.float64) / 7, GREYS),
    "signed": (GREY.astype(np.int16), {**GREYS, **TILES}),
    "big-endian": (GREY, {**GREYS, "byteorder": ">"}),
    "big-endian zlib": (GREY, {**GREYS, "byteorder": ">", "compression": "zlib", "predictor": 2}),
    "BigTIFF": (GREY, {**GREYS, "bigtiff": True, "compression": "zlib"}),
    "one bit": (GREY % 2 > 0, GREYS),
    "one bit, packed": (GREY % 2 > 0, {**GREYS, "rowsperstrip": 9, "compression": "packbits"}),
    "palette": (COLOUR[..., 0], {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}),
    "tiles": (GREY, {**GREYS, **TILES}),
    "tiles zlib": (GREY, {**GREYS, **TILES, "compression": "zlib"}),
    "one tile": (GREY, {**GREYS, "tile": (80, 64), "compression": "zlib"}),
    "RGB": (COLOUR, RGB),
    "RGB tiles": (COLOUR, {**RGB, **TILES, "compression": "lzw"}),
    "JPEG": (COLOUR, {**RGB, "tile": (16, 16), "compression": "jpeg"}),
    "JPEG strips": (COLOUR[..., 0], {**GREYS, "rowsperstrip": 16, "compression": "jpeg"}),
    "RGB planar": (np.moveaxis(COLOUR, -1, 0), {**RGB, **PLANAR}),
    "RGB planar zlib": (
        np.moveaxis(COLOUR, -1, 0),
        {**RGB, **PLANAR, "compression": "zlib", "rowsperstrip": 9},
    ),
    "RGB planar tiles": (np.moveaxis(COLOUR, -1, 0), {**RGB, **PLANAR, **TILES}),
    "RGB stack planar": (
        np.stack([np.moveaxis(COLOUR + i, -1, 0) for i in range(3)]),
        {**RGB, **PLANAR, "compression": "zlib"},
    ),
    "opaque": (np.dstack([COLOUR, np.full((70, 53), 255, np.uint8)]), {**RGB, **TILES}),
    "ImageJ TZC": (GREY.reshape(1, 3, 2, 70, 53), {"imagej": True, "metadata": {"axes": "TZCYX"}}),
    "ImageJ C zlib": (
        GREY.reshape(3, 2, 70, 53),
        {"imagej": True, "metadata": {"axes": "ZCYX"}, "compression": "zlib"},
    ),
    "ImageJ RGB": (np.stack([COLOUR, COLOUR + 1]), {"imagej": True, "metadata": {"axes": "ZYXS"}}),
    "OME CZ": (GREY.reshape(2, 3, 70, 53), {**GREYS, "ome": True, "metadata": {"axes": "CZYX"}}),
    "OME TC tiles": (
        GREY.reshape(3, 2, 70, 53),
        {**GREYS, **TILES, "ome": True, "metadata": {"axes": "TCYX"}, "compression": "zlib"},
    ),
    "volume": (GREY, {**GREYS, "volumetric": True, "tile": (2, 16, 16), "compression": "zlib"}),
    "odd axes": (GREY, {**GREYS, "metadata": {"axes": "YXZ"}}),
    "one row": (GREY[:, :1], GREYS),
    "one column": (GREY[:, :, :1], {**GREYS, "compression": "zlib"}),
}


def agree(path: Path, seed: int = 0) -> None:
    """Every row of every page and random windows are those of the whole file."""
    whole, rng = images.read_array(path), np.random.default_rng(seed)
    with open_source(path) as source:
        shape = (source.count, source.height, source.width, source.channels)
        assert shape == whole.shape and source.dtype == whole.dtype
        for _ in range(25):
            page = int(rng.integers(len(whole)))
            start, stop = np.sort(rng.choice(whole.shape[1] + 1, 2, replace=False)).tolist()
            rows = source.rows(page, start, stop)
            assert rows.dtype == whole.dtype and rows.dtype.isnative
            np.testing.assert_array_equal(rows, whole[page, start:stop])
        for page in range(len(whole)):
            np.testing.assert_array_equal(source.rows(page, 0, len(whole[page])), whole[page])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_those_of_the_whole_tiff(tmp_path, layout):
    array, options = LAYOUTS[layout]
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    agree(tmp_path / "a.tif")


def test_rows_of_an_imagej_stack_whose_pages_have_no_directory(tmp_path):
    """ImageJ writes stacks beyond 4 GB with the header of the first page only."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, imagej=True, metadata={"axes": "ZYX"})
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        end = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
    data[end : end + 4] = bytes(4)  # no next page
    path.write_bytes(data)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1 and file.series[0].shape == GREY.shape
    agree(path)


def test_pages_that_lie_apart_in_the_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in GREY:
            file.write(page, metadata=None, extratags=[(65000, "s", 0, "x" * 99, True)])
    agree(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg"])
def test_rows_of_pictures(tmp_path, name):
    for array in (COLOUR, COLOUR[..., 0]):
        Image.fromarray(array).save(tmp_path / name)
        agree(tmp_path / name)


@pytest.mark.parametrize("kind", ["uint8", ">u2", "int32", "float64", "bool"])
def test_rows_of_npy(tmp_path, kind):
    for array in (GREY, GREY[0], COLOUR, np.asfortranarray(GREY), GREY[..., None]):
        np.save(tmp_path / "a.npy", array.astype(kind))
        agree(tmp_path / "a.npy")


def test_a_window_outside_the_image_is_an_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, **GREYS)
    with open_source(tmp_path / "a.tif") as source:
        for window in ((6, 0, 1), (-1, 0, 1), (0, -1, 5), (0, 60, 71), (0, 5, 5)):
            with pytest.raises(ValueError, match="no rows"):
                source.rows(*window)


def test_overlapping_slabs_decode_nothing_twice(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY[:1], **GREYS, tile=(16, 16), compression="zlib")
    decoded = []
    put = BlockCache.put

    def counted(self, key, *block):
        decoded.append(key)
        put(self, key, *block)

    monkeypatch.setattr(BlockCache, "put", counted)
    monkeypatch.setattr(tiff_rows, "KEPT_BYTES", 0)  # leaves one row of tiles
    with open_source(path) as source:
        for start in range(0, 64, 8):  # the overlap lies within one row of tiles
            source.rows(0, start, min(start + 14, 70))
    assert len(decoded) == len(set(decoded)) == 5 * 4


def test_several_threads_may_read_one_source(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    tifffile.imwrite(tmp_path / "a.tif", GREY, **GREYS)
    with open_source(tmp_path / "a.tif") as source, ThreadPoolExecutor(4) as threads:
        rows = threads.map(lambda i: source.rows(i % 6, i % 60, i % 60 + 9), range(400))
        for i, found in enumerate(rows):
            np.testing.assert_array_equal(found[..., 0], GREY[i % 6, i % 60 : i % 60 + 9])


# Bad files


def refused(path: Path) -> str:
    """The message of the refusal, met on opening or on reading all rows."""
    with pytest.raises(BadImage) as error, open_source(path) as source:
        for page in range(source.count):
            source.rows(page, 0, source.height)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
def test_a_cut_stack_is_refused_at_every_length(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression=compression, **GREYS)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.5, 0.7, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_file_cut_while_it_is_read_is_refused(tmp_path, compression):
    path = tmp_path / "a.tif"
    noise = RNG.integers(0, 65536, (2, 200, 300)).astype(np.uint16)
    tifffile.imwrite(path, noise, compression=compression, rowsperstrip=10, **GREYS)
    with open_source(path) as source:
        source.rows(0, 0, 10)
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(BadImage) as error:
            source.rows(1, 150, 200)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {**TILES, "compression": "lzw"}])
def test_random_damage_is_refused_wherever_the_whole_file_is(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **GREYS, **options)
    whole, refusals = path.read_bytes(), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        at = int(rng.integers(min(600, len(whole)))) if seed % 2 else int(rng.integers(len(whole)))
        path.write_bytes(whole[:at] + rng.bytes(8) + whole[at + 8 :])
        try:
            expected = images.read_array(path)
        except BadImage:
            refused(path)
            refusals += 1
            continue
        with open_source(path) as source:
            found = np.stack([source.rows(p, 0, source.height) for p in range(source.count)])
        np.testing.assert_array_equal(found, expected)
    assert refusals > 10


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.txt", "a.tif"])
def test_files_that_are_no_images(tmp_path, name):
    refused(tmp_path / name)  # there is none
    (tmp_path / name).write_text("no image at all")
    refused(tmp_path / name)


def test_bad_pixels_are_refused_where_they_are_met(tmp_path):
    path = tmp_path / "a.tif"
    opaque = np.dstack([COLOUR, np.full((70, 53), 255, np.uint8)])
    opaque[40, 3, 3] = 254
    tifffile.imwrite(path, opaque, **RGB, extrasamples=["unassalpha"], rowsperstrip=5)
    holes = GREY[0].astype(np.float32)
    holes[40, 3] = np.nan
    np.save(tmp_path / "a.npy", holes)
    np.save(tmp_path / "b.npy", np.where(np.arange(70) == 40, -1, 7).astype("i4")[:, None])
    for file, text in ((path, "transparent"), ("a.npy", "1 pixels are NaN"), ("b.npy", "int32")):
        with open_source(tmp_path / file) as source:
            source.rows(0, 0, 40)
            with pytest.raises(BadImage, match=text):
                source.rows(0, 35, 41)


def test_only_whole_files_have_a_limit_on_their_size(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **GREYS)
    for function in (tiff.check_header, tiff.check_size):
        monkeypatch.setattr(function, "__defaults__", (1000,))
    with pytest.raises(BadImage, match="limit"):
        images.read_array(path)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.rows(5, 60, 70)[..., 0], GREY[5, 60:])


def test_pixels_beyond_any_compression_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((500, 500), "u1"), compression="zlib", rowsperstrip=500)
    with open_source(path) as source:
        assert not source.rows(0, 0, 500).any()
    monkeypatch.setattr(tiff, "FREE_BYTES", 1000)
    assert "claims 250,000 bytes" in refused(path)


# Memory


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from feedseg.io import percentiles, source as images

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

with images.open_source(Path(sys.argv[1])) as source:
    source.rows(0, 0, 64)
    Path("/proc/self/clear_refs").write_text("5")
    before, total = peak(), 0
    for start in range(0, source.height, 64):
        total += int(source.rows(0, max(start - 32, 0), min(start + 64, source.height))[0, 0, 0])
    percentiles.limits(source, 0, "image_percentile", (1, 99))
    print(peak() - before, source.height * source.width * 2 / 2**20)
"""


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_memory_stays_bounded(tmp_path, compression):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs /proc")
    tile = RNG.integers(0, 200, (256, 256)).astype(np.uint16)
    many = {"tile": tile.shape} if compression else {}
    parts = (tile for _ in range(50 * 48)) if compression else np.tile(tile, (50, 48))
    tifffile.imwrite(
        tmp_path / "a.tif",
        parts,
        shape=(50 * 256, 48 * 256),
        dtype=np.uint16,
        compression=compression,
        **many,
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "a.tif")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, size = map(float, done.stdout.split())
    assert size == 300 and grown < 60


# Limits


def grey_values(rng: np.random.Generator) -> np.ndarray:
    """A page of some type, size and histogram, [H, W, C]."""
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 40)), int(rng.choice([1, 3])))
    kind = rng.choice(["uint8", "uint16", "narrow", "float32", "wide", "steps"])
    if kind in ("uint8", "uint16"):
        return rng.integers(0, np.iinfo(kind).max + 1, shape).astype(kind)
    if kind == "narrow":
        return rng.integers(500, 503, shape).astype(np.uint16)
    if kind == "steps":
        return rng.integers(-2, 3, shape).astype(np.float32) / 4
    spread = rng.normal(size=shape)
    return (spread * 10.0 ** (rng.integers(-30, 30, shape) if kind == "wide" else 0)).astype("f4")


def test_percentiles_are_those_of_the_whole_page(tmp_path):
    for seed in range(300):
        rng = np.random.default_rng(seed)
        page = grey_values(rng)
        asked = [(0.5, 99.5), (1, 99), (0, 100), tuple(np.sort(rng.uniform(0, 100, 2)))][seed % 4]
        source = ImageSource(
            tmp_path, (1, *page.shape), page.dtype, lambda _, a, b, page=page: page[a:b]
        )
        found = percentiles.limits(source, 0, "image_percentile", asked, int(rng.integers(1, 20)))
        assert found == normalize.limits(page, "image_percentile", asked), (seed, page.dtype)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_limits_of_files(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", (GREY // 2).astype(kind), compression="zlib", **GREYS)
    with open_source(tmp_path / "a.tif") as source:
        for page, pixels in enumerate(images.read_array(tmp_path / "a.tif")):
            for rule in normalize.KINDS:
                expected = normalize.limits(pixels, rule, (2, 98))
                assert percentiles.limits(source, page, rule, (2, 98)) == expected
        with pytest.raises(UserError, match="choose one of"):
            percentiles.limits(source, 0, "median", (2, 98))


def test_floats_keep_their_order_as_integers():
    values = np.array([-np.inf, -3e38, -1, -1e-45, -0.0, 0, 1e-45, 1, 3e38], np.float32)
    keys = percentiles._keys(values)
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(percentiles._floats(keys), values)
