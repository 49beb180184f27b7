"""OME-Zarr images read by slabs, and label images written as OME-Zarr."""

import json
import pickle
import shutil
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg.io import images, ngff, zarr_rows
from feedseg.io.calibration import Calibration
from feedseg.io.reading import ReadOptions
from feedseg.io.source import open_source, page_axes
from feedseg.io.writers import labels as labels_writer
from feedseg.io.writers import ome_zarr as ome_zarr_labels
from feedseg.runtime.errors import BadImage, SaveFailed, UserError

zarr = pytest.importorskip("zarr", reason="needs the extra `zarr`")

RNG = np.random.default_rng(0)
NAMES = ("background", "wall & lumen", "nucleus")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 120, 255))
MICRONS = Calibration(0.5, 0.25, "µm", 2.0)
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def write_image(path: Path, array, axes: str, version="0.4", chunks=None, **multiscale) -> Path:
    """An OME-Zarr image of one level; a `scale` of one number per axis may be given."""
    scale = multiscale.pop("scale", None)
    steps = [{"type": "scale", "scale": scale}] if scale else []
    entries = [{"name": a, **({"unit": UNITS[a]} if a in UNITS else {})} for a in axes]
    image = {"axes": entries, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    image |= {"version": version, **multiscale}
    new = version == "0.5"
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    group = zarr.create_group(
        str(path),
        zarr_format=3 if new else 2,
        attributes=attributes if new else {"multiscales": [image]},
    )
    store(group, "s0", array, chunks)
    return path


def store(group, name: str, array: np.ndarray, chunks=None) -> None:
    chunks = chunks or tuple(min(16, side) for side in array.shape)
    full = {"write_empty_chunks": True}
    kind = dict(shape=array.shape, dtype=array.dtype)
    made = group.create_array(name, chunks=chunks, config=full, **kind)
    made[...] = array


def read_by_rows(path: Path, seed: int = 0) -> np.ndarray:
    """All pages; on the way, random rows are checked to be those of the whole image."""
    whole, rng = images.read_array(path), np.random.default_rng(seed)
    with open_source(path) as source:
        shape = (source.count, source.height, source.width, source.channels)
        assert shape == whole.shape and source.dtype == whole.dtype
        for _ in range(20):
            page = int(rng.integers(len(whole)))
            start, stop = np.sort(rng.choice(whole.shape[1] + 1, 2, replace=False)).tolist()
            rows = source.rows(page, start, stop)
            assert rows.dtype == whole.dtype
            np.testing.assert_array_equal(rows, whole[page, start:stop])
            rows[...] = 0  # the caller's, not those that are kept
        return np.stack([source.rows(p, 0, source.height) for p in range(source.count)])


# Reading


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "zyx", "cyx", "yx", "tyx", "yxc", "zctyx", "xyz"])
def test_pixels_are_those_of_the_same_tiff_in_any_order_of_axes(tmp_path, axes, version):
    sizes = {"t": 2, "c": 3, "z": 4, "y": 37, "x": 29}
    known = [a for a in "tzcyx" if a in axes]
    array = RNG.integers(0, 60000, [sizes[a] for a in known]).astype(np.uint16)
    tiff = tmp_path / "a.ome.tif"
    metadata = {"axes": "".join(known).upper()}
    tifffile.imwrite(tiff, array, ome=True, metadata=metadata, photometric="minisblack")
    stored = array.transpose([known.index(a) for a in axes])
    path = write_image(tmp_path / "a.zarr", stored, axes, version)
    np.testing.assert_array_equal(read_by_rows(path), images.read_array(tiff))
    assert page_axes(path) == page_axes(tiff)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("kind", ["u1", ">u2", "f4", "f8", "bool", "i4", "f2"])
def test_types_become_those_of_a_tiff(tmp_path, kind, version):
    array = RNG.integers(0, 2, (20, 30)).astype(kind)
    path = write_image(tmp_path / "a.zarr", array, "yx", version)
    found = read_by_rows(path)
    np.testing.assert_array_equal(found[0, ..., 0], array)
    expected = {"u1": "u1", "bool": "u1", ">u2": "u2", "i4": "u2"}.get(kind, "f4")
    assert found.dtype == expected


def test_scales_of_image_and_level_multiply(tmp_path):
    image = np.zeros((2, 3, 20, 20), np.uint8)
    more = [{"type": "scale", "scale": [1, 4, 2, 2]}]
    scales = {"scale": [1, 0.5, 0.25, 0.125], "coordinateTransformations": more}
    path = write_image(tmp_path / "a.zarr", image, "czyx", **scales)
    assert images.read_calibration(path) == Calibration(0.5, 0.25, "µm", 2.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Calibration(3, 4, "µm", 2)),
        ({"y": "nanometer"}, Calibration(0.003, 4, "µm", 2)),
        ({"y": None, "x": None}, None),
        ({"z": "nanometer"}, Calibration(3, 4, "µm", 0.002)),
        ({"y": "parsec", "x": "parsec"}, Calibration(3, 4, "parsec", None)),
    ],
)
def test_units(tmp_path, monkeypatch, change, expected):
    for axis, unit in change.items():
        monkeypatch.setitem(UNITS, axis, unit)
    path = write_image(tmp_path / "a.zarr", np.zeros((2, 20, 20), "u1"), "zyx", scale=[2, 3, 4])
    assert images.read_calibration(path) == expected


def test_without_a_scale_there_is_no_pixel_size(tmp_path):
    path = write_image(tmp_path / "a.zarr", np.zeros((20, 20), "u1"), "yx")
    assert images.read_calibration(path) is None


def test_versions_before_the_axes_had_types(tmp_path):
    array = RNG.integers(0, 9, (2, 1, 3, 20, 20)).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", array, "tczyx")
    text = json.loads((path / ".zattrs").read_text())
    for axes in (list("tczyx"), None):
        text["multiscales"][0]["axes"] = axes
        (path / ".zattrs").write_text(json.dumps(text))
        np.testing.assert_array_equal(read_by_rows(path)[..., 0], array.reshape(6, 20, 20))


def test_levels_and_arrays_without_metadata(tmp_path):
    array = RNG.integers(0, 9, (4, 3, 20, 24)).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", array, "zcyx", scale=[1, 1, 2, 2])
    np.testing.assert_array_equal(read_by_rows(path / "s0"), array.transpose(0, 2, 3, 1))
    assert images.read_calibration(path / "s0").pixel_width == 2
    bare = zarr.create_group(str(tmp_path / "b.zarr"))
    store(bare, "stack", array[:, 0])
    store(bare, "color", array[0].transpose(1, 2, 0))
    store(bare, "deep", array[None])
    named = bare.create_array(
        "named", shape=(3, 20, 24), dtype="u1", dimension_names=["C", "Y", "X"]
    )
    named[...] = array[0]
    folder = tmp_path / "b.zarr"
    np.testing.assert_array_equal(read_by_rows(folder / "stack")[..., 0], array[:, 0])
    for name in ("color", "named"):
        np.testing.assert_array_equal(read_by_rows(folder / name)[0], array[0].transpose(1, 2, 0))
    with pytest.raises(BadImage, match="without the names of its axes"):
        open_source(folder / "deep")
    with pytest.raises(BadImage, match=r"give one of its arrays: .*b\.zarr/color"):
        open_source(folder)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_absent_chunks_are_counted_and_filled_only_when_asked(tmp_path, version):
    array = RNG.integers(1, 9, (40, 50)).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", array, "yx", version)
    key = (path / "s0/c/1/2") if version == "0.5" else (path / "s0/1.2")
    key.unlink()
    for read in (images.read_array, images.read_label, open_source):
        with pytest.raises(BadImage, match=r"1 of 12 chunks have no file.*--fill-missing"):
            read(path)
    array[16:32, 32:48] = 0
    filled = images.read_array(path, ReadOptions(fill_missing=True))
    np.testing.assert_array_equal(filled[0, ..., 0], array)


def test_chunks_that_a_shard_leaves_out_are_the_fill_value(tmp_path):
    array = RNG.integers(1, 9, (40, 50)).astype(np.uint8)
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    made = group.create_array("s", shape=(40, 50), dtype="u1", shards=(40, 64), chunks=(10, 8))
    made[:20] = array[:20]  # the index says that the others are not there
    array[20:] = 0
    np.testing.assert_array_equal(read_by_rows(tmp_path / "a.zarr/s")[0, ..., 0], array)


def layouts() -> dict[str, dict]:
    """Arguments of arrays whose chunks go through every way of storing them."""
    from numcodecs import LZ4, Blosc, GZip, Shuffle, Zstd
    from zarr.codecs import BloscCodec, ShardingCodec

    start = ShardingCodec(
        chunk_shape=(32, 32),
        codecs=[zarr.codecs.BytesCodec(), BloscCodec()],
        index_location="start",
    )
    raw = ShardingCodec(chunk_shape=(32, 32), index_location="start")
    return {
        "blosc2": dict(zarr_format=2, compressors=Blosc()),
        "filter2": dict(zarr_format=2, compressors=Blosc(), filters=[Shuffle(2)]),
        "lz4": dict(zarr_format=2, compressors=LZ4()),
        "gzip": dict(zarr_format=2, compressors=GZip()),
        "zstd2": dict(zarr_format=2, compressors=Zstd()),
        "raw2": dict(zarr_format=2, compressors=None),
        "blosc3": dict(compressors=BloscCodec()),
        "zstd3": dict(compressors=zarr.codecs.ZstdCodec()),
        "raw3": dict(compressors=None),
        "shards": dict(compressors=BloscCodec(), shards=(64, 64), chunks=(32, 32)),
        "shards_start": dict(serializer=start, compressors=None),
        "shards_raw": dict(serializer=raw, compressors=None),
    }


@pytest.mark.parametrize("layout", layouts())
def test_a_chunk_cut_at_any_length_is_refused(tmp_path, layout):
    array = RNG.integers(0, 5, (64, 64)).astype(np.uint16)
    options = {"chunks": (64, 64), **layouts()[layout]}
    path = tmp_path / "a.zarr"
    made = zarr.create_array(str(path), shape=array.shape, dtype="u2", **options)
    made[...] = array
    (chunk,) = (f for f in path.rglob("*") if f.is_file() and f.name in ("0.0", "0"))
    whole = chunk.read_bytes()
    np.testing.assert_array_equal(images.read_array(path)[0, ..., 0], array)
    for length in [*range(0, 24), *range(24, len(whole), len(whole) // 40)]:
        chunk.write_bytes(whole[:length])
        with pytest.raises(BadImage) as error:
            images.read_array(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        with pytest.raises(BadImage), open_source(path) as source:
            source.rows(0, 0, 40)
            source.rows(0, 40, 64)


def test_a_chunk_that_no_machine_should_decode_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    side = 60_000
    zarr.create_array(str(path), shape=(side, side), dtype="u2", chunks=(side, side))
    with pytest.raises(BadImage, match=r"chunks of 60000 x 60000, 6.7 GiB.*smaller chunks"):
        open_source(path, ReadOptions(fill_missing=True))


def count_reads(monkeypatch) -> Counter:
    counted: Counter = Counter()
    get = zarr.storage.LocalStore.get

    async def counting(self, key, *args, **kwargs):
        if not key.endswith(("json", ".zarray", ".zattrs", ".zgroup")):
            counted[key] += 1
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counting)
    return counted


def test_overlapping_slabs_decode_each_chunk_once(tmp_path, monkeypatch):
    array = RNG.integers(0, 9, (2, 64, 40)).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", array, "zyx", chunks=(1, 16, 16))
    monkeypatch.setattr(zarr_rows, "BLOCK_BYTES", 1)
    monkeypatch.setattr(zarr_rows, "KEPT_BYTES", 1)
    counted = count_reads(monkeypatch)
    with open_source(path) as source:
        for page in range(2):
            for start in range(0, 64, 5):
                source.rows(page, max(0, start - 3), min(64, start + 8))
    assert len(counted) == 2 * 4 * 3 and set(counted.values()) == {1}


def test_pages_of_one_chunk_are_decoded_together_where_they_fit(tmp_path, monkeypatch):
    array = RNG.integers(0, 9, (8, 32, 40)).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", array, "zyx", chunks=(8, 16, 16))
    counted = count_reads(monkeypatch)
    for budget, times in ((10 * array.nbytes, 1), (array.nbytes - 1, 8)):
        counted.clear()
        monkeypatch.setattr(zarr_rows, "VOLUME_BYTES", budget)
        with open_source(path) as source:
            for page in range(8):
                for start in range(0, 32, 16):
                    rows = source.rows(page, start, start + 16)[..., 0]
                    np.testing.assert_array_equal(rows, array[page, start : start + 16])
        assert set(counted.values()) == {times}


def test_memory_does_not_grow_with_the_image(tmp_path):
    peaks = []
    for height in (1024, 8192):
        path = tmp_path / f"{height}.zarr"
        write_image(path, np.zeros((height, 1024), np.uint16), "yx", chunks=(256, 256))
        tracemalloc.start()
        with open_source(path) as source:
            for start in range(0, height, 128):
                source.rows(0, start, start + 128)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * max(peaks[0], zarr_rows.KEPT_BYTES)
    assert peaks[1] < 0.4 * 8192 * 1024 * 2 * 8  # eight such images


# What is refused


def test_pixels_that_are_no_numbers_and_wrong_types(tmp_path):
    broken = np.zeros((20, 20), np.float32)
    broken[3, 4] = np.nan
    with (
        open_source(write_image(tmp_path / "nan.zarr", broken, "yx")) as source,
        pytest.raises(BadImage, match=r"nan\.zarr: 1 pixels are NaN"),
    ):
        source.rows(0, 0, 20)
    cases = {
        "complex": (np.zeros((20, 20), np.complex64), "yx", "pixel type complex64"),
        "empty": (np.zeros((0, 20), np.uint8), "yx", "the image is empty"),
        "angle": (np.zeros((2, 20, 20), np.uint8), "ayx", "has an axis a"),
        "nameless": (np.zeros((2, 20, 20), np.uint8), ["", "y", "x"], "an axis without a name"),
        "joined": (np.zeros((2, 20, 20), np.uint8), ["tc", "y", "x"], "has an axis tc"),
        "flat": (np.zeros((2, 20), np.uint8), "zx", "not those of an image"),
        "twice": (np.zeros((2, 20, 20), np.uint8), "yyx", "not those of an image"),
        "more": (np.zeros((2, 20, 20), np.uint8), "yx", "array has 3 axes"),
        "large": (np.full((20, 20), 70000, np.int32), "yx", "70000"),
    }
    for name, (array, axes, text) in cases.items():
        path = write_image(tmp_path / f"{name}.zarr", array, axes, chunks=(9,) * array.ndim)
        with pytest.raises(BadImage, match=text) as error, open_source(path) as source:
            source.rows(0, 0, 20)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        with pytest.raises(BadImage, match=text):
            images.read_array(path)


def test_an_axis_of_length_one_may_have_any_name(tmp_path):
    array = RNG.integers(0, 9, (20, 1, 24)).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", array, "yax")
    np.testing.assert_array_equal(read_by_rows(path)[0, ..., 0], array[:, 0])


def test_folders_that_hold_several_images_or_one(tmp_path):
    image = np.ones((20, 20), np.uint8)
    plate = tmp_path / "plate.zarr"
    zarr.create_group(str(plate), zarr_format=2, attributes={"plate": {"wells": []}})
    for field in range(12):
        write_image(plate / "A" / "1" / str(field), image, "yx")
    with pytest.raises(BadImage, match="a plate of several images; give one of them") as error:
        open_source(plate)
    assert f"{plate}/A/1/2, {plate}/A/1/3" in str(error.value) and f"{plate}/A/1/10" not in str(
        error.value
    )
    raw = tmp_path / "raw.zarr"
    zarr.create_group(str(raw), zarr_format=2, attributes={"bioformats2raw.layout": 3})
    (raw / "OME").mkdir()
    write_image(raw / "0", image, "yx", scale=[3, 4])
    assert read_by_rows(raw).shape == (1, 20, 20, 1)
    assert images.read_calibration(raw) == Calibration(3, 4, "µm")
    write_image(raw / "1", image, "yx")
    with pytest.raises(BadImage, match=f"a container of several images.*{raw}/0, {raw}/1"):
        open_source(raw)
    zarr.create_group(str(tmp_path / "none.zarr"))
    with pytest.raises(BadImage, match="no OME-Zarr image in this folder"):
        open_source(tmp_path / "none.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_damage_is_named(tmp_path, version):
    array = RNG.integers(0, 9000, (32, 32)).astype(np.uint16)
    sound = write_image(tmp_path / "sound.zarr", array, "yx", version)
    marks = "c/1/1" if version == "0.5" else "1.1"
    attributes = "zarr.json" if version == "0.5" else ".zattrs"
    damage = {
        "chunk": lambda p: (p / "s0" / marks).write_bytes(b"damaged"),
        "json": lambda p: (p / attributes).write_text("{"),
        "no object": lambda p: (p / attributes).write_text("[1]"),
        "no attributes": lambda p: (p / attributes).write_text('{"attributes": 3}'),
        "no array": lambda p: shutil.rmtree(p / "s0"),
        "no levels": lambda p: (p / attributes).write_text(
            '{"multiscales": [{}], "attributes": {"ome": {"multiscales": [{}]}}}'
        ),
    }
    for name, change in damage.items():
        path = tmp_path / f"{name}.zarr"
        shutil.copytree(sound, path)
        change(path)
        with pytest.raises(BadImage, match=f"{path}") as error, open_source(path) as source:
            source.rows(0, 0, 32)
        assert "\n" not in str(error.value)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_pixels_are_not_loaded(tmp_path):
    made = tmp_path / "made"
    trap = Trap(made)
    array = np.zeros((8, 8), np.uint8)
    for key, value in (("compressor", {"id": "pickle"}), ("filters", [{"id": "pickle"}])):
        path = write_image(tmp_path / f"{key}.zarr", array, "yx")
        facts = json.loads((path / "s0/.zarray").read_text())
        (path / "s0/.zarray").write_text(json.dumps({**facts, "compressor": None, key: value}))
        (path / "s0/0.0").write_bytes(pickle.dumps(trap))
        with pytest.raises(BadImage, match="pickle"):
            images.read_array(path)
    assert not made.exists()


def test_without_the_library_only_ome_zarr_is_out_of_reach(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.zarr", np.zeros((20, 20), "u1"), "yx", scale=[3, 4])
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 20), np.uint8))
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert len(images.list_images(tmp_path)) == 2
    assert images.read_calibration(path) == Calibration(3, 4, "µm")
    assert open_source(tmp_path / "b.tif").height == 20
    for call in (open_source, images.read_array):
        with pytest.raises(UserError, match=r'a\.zarr.*pip install "feedseg\[zarr\]"'):
            call(path)
    with pytest.raises(UserError, match=r'pip install "feedseg\[zarr\]"'):
        labels_writer.require("ome-zarr", tmp_path)
    labels_writer.require("ome-tiff", tmp_path)


# Which folders are images


def test_folders_that_are_images(tmp_path):
    image = np.zeros((20, 20), np.uint8)
    for name in ("b.ome.zarr", "a.ZARR", "sub/c.zarr", ".hidden.zarr"):
        write_image(tmp_path / "all" / name, image, "yx")
    tifffile.imwrite(tmp_path / "all" / "d.tif", image)
    (tmp_path / "all" / "e.zarr").write_text("no folder")
    (tmp_path / "all" / "x.tif").mkdir()
    found = images.list_images(tmp_path / "all")
    assert [each.name for each in found] == ["a.ZARR", "b.ome.zarr", "d.tif"]
    for each in found[:2]:
        assert images.list_images(each) == [each]
    plain = write_image(tmp_path / "named_otherwise", image, "yx", "0.5")
    assert images.list_images(plain) == [plain]
    zarr.create_group(str(tmp_path / "all"))  # as viewers leave them
    assert images.list_images(tmp_path / "all") == found


def test_names_without_suffixes():
    names = ("a.ome.zarr", "a.OME.TIF", "a.zarr", "a.tif", "a.b.tif", "a.ome.png", ".ome.tif")
    stems = [images.stem(Path(name)) for name in names]
    assert stems == ["a", "a", "a", "a", "a.b", "a.ome", ".ome"]


def test_a_stamp_changes_with_any_chunk(tmp_path):
    path = write_image(tmp_path / "a.zarr", np.ones((20, 20), "u1"), "yx")
    before = ngff.stamp(path)
    chunk = path / "s0" / "0.0"
    chunk.write_bytes(chunk.read_bytes() + b"1")
    assert ngff.stamp(path) != before
    facts = chunk.stat()
    assert ngff.stamp(chunk) == {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


# Labels


def in_slabs(labels: np.ndarray, height: int):
    for page in labels:
        for top in range(0, page.shape[0], height):
            yield page[top : top + height]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ome_zarr_labels, "CHUNK", 16)
    monkeypatch.setattr(ome_zarr_labels, "SMALLEST", 12)


@pytest.mark.parametrize("size", [(61, 45), (16, 33), (5, 7), (1, 40), (64, 64)])
@pytest.mark.parametrize("height", [7, 200])
def test_labels_round_trip_with_their_pyramid(tmp_path, small, size, height):
    labels = RNG.integers(0, 3, (3, *size)).astype(np.uint8)
    path = tmp_path / "new" / "a_labels.ome.zarr"
    labels_writer.write_labels(path, in_slabs(labels, height), NAMES, COLORS, MICRONS, labels.shape)
    np.testing.assert_array_equal(images.read_label(path), labels)
    assert images.read_calibration(path) == MICRONS
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    levels = sorted(path.glob("labels/classes/[0-9]*"))
    for number, level in enumerate(levels):
        step = 2**number
        np.testing.assert_array_equal(images.read_label(level), labels[:, ::step, ::step])
        found = images.read_calibration(level)
        assert found == Calibration(0.5 * step, 0.25 * step, "µm", 2.0)
        last = level == levels[-1]
        assert last == (max(images.read_label(level).shape[1:]) <= 12)


def test_labels_of_background_alone_have_all_their_chunks(tmp_path, small):
    labels = np.zeros((2, 40, 40), np.uint8)
    path = tmp_path / "a.ome.zarr"
    labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS)
    for level in (path, *path.glob("labels/classes/[0-9]*")):
        assert not images.read_label(level).any()


def test_labels_have_names_and_colors_where_readers_look_for_them(tmp_path):
    path = tmp_path / "a.zarr"
    labels = RNG.integers(0, 3, (1, 20, 30)).astype(np.uint8)
    labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS._replace(unit="micron"))
    root = zarr.open_group(str(path), mode="r")
    assert root.metadata.zarr_format == 2
    assert root["labels"].attrs["labels"] == ["classes"]
    attributes = root["labels/classes"].attrs
    assert attributes["image-label"]["colors"] == [
        {"label-value": 0, "rgba": [0, 0, 0, 255]},
        {"label-value": 1, "rgba": [255, 0, 0, 255]},
        {"label-value": 2, "rgba": [0, 120, 255, 255]},
    ]
    properties = attributes["image-label"]["properties"]
    assert [(p["label-value"], p["class"]) for p in properties] == list(enumerate(NAMES))
    for group in (root, root["labels/classes"]):
        image = group.attrs["multiscales"][0]
        assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
        assert image["version"] == "0.4" and image["axes"][0]["unit"] == "micrometer"
        (level,) = image["datasets"]
        assert level["coordinateTransformations"] == [{"type": "scale", "scale": [0.5, 0.25]}]
        np.testing.assert_array_equal(group[level["path"]][...], labels[0])
    assert (path / "labels/classes/0/0/0").is_file()  # chunks in folders, as 0.4 wants


def test_labels_without_a_known_unit_have_no_size(tmp_path):
    labels = np.zeros((1, 20, 30), np.uint8)
    for unit, found in (("furlong", None), ("nm", Calibration(0.5, 0.25, "nm"))):
        path = tmp_path / f"{unit}.zarr"
        labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS._replace(unit=unit))
        assert images.read_calibration(path) == found
    labels_writer.write_labels(tmp_path / "none.zarr", labels, NAMES, COLORS)
    assert images.read_calibration(tmp_path / "none.zarr") is None


@pytest.mark.parametrize("axes", [(("t", 2), ("z", 3)), (("z", 3), ("t", 2)), (("t", 6),)])
def test_labels_keep_the_axes_of_the_image(tmp_path, small, axes):
    labels = RNG.integers(0, 3, (6, 20, 30)).astype(np.uint8)
    path = tmp_path / "a.zarr"
    labels_writer.write_labels(path, labels, NAMES, COLORS, MICRONS, None, axes)
    found = zarr.open_array(str(path / "labels/classes/0"), mode="r")[...]
    cube = labels.reshape(*(size for _, size in axes), 20, 30)
    np.testing.assert_array_equal(found, cube if axes[0][0] == "t" else cube.swapaxes(0, 1))
    assert page_axes(path) == tuple(sorted(axes))
    with pytest.raises(ValueError, match="for 6 pages"):
        labels_writer.write_labels(path, labels, NAMES, COLORS, None, None, (("z", 5),))


def test_labels_appear_when_whole_and_replace_only_an_ome_zarr(tmp_path):
    path = tmp_path / "a.zarr"
    old = np.ones((1, 20, 30), np.uint8)
    labels_writer.write_labels(path, old, NAMES, COLORS)

    def failing():
        yield np.zeros((10, 30), np.uint8)
        assert any(each.name.startswith(".a.zarr") for each in tmp_path.iterdir())
        raise BadImage("b.tif: damaged")

    with pytest.raises(BadImage):
        labels_writer.write_labels(path, failing(), NAMES, COLORS, None, (1, 20, 30))
    np.testing.assert_array_equal(images.read_label(path), old)
    dead = tmp_path / ".a.zarr.99999999.part"
    dead.mkdir()  # of a killed process
    labels_writer.write_labels(path, old * 2, NAMES, COLORS)
    np.testing.assert_array_equal(images.read_label(path), old * 2)
    assert [each.name for each in tmp_path.iterdir()] == ["a.zarr"]
    (tmp_path / "b.zarr").write_text("mine")
    with pytest.raises(UserError, match=r"b\.zarr: exists and is no OME-Zarr"):
        labels_writer.write_labels(tmp_path / "b.zarr", old, NAMES, COLORS)
    assert (tmp_path / "b.zarr").read_text() == "mine"


def test_an_unusable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveFailed, match=r"a\.zarr: cannot be written"):
        labels_writer.write_labels(
            tmp_path / "file" / "a.zarr", np.zeros((1, 9, 9), np.uint8), NAMES, COLORS
        )


def test_writing_labels_keeps_one_row_of_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(ome_zarr_labels, "CHUNK", 512)
    slab = np.ones((64, 2048), np.uint8)
    peaks = []
    for height in (1024, 6144):
        predict_rows = (slab for _ in range(height // 64))
        tracemalloc.start()
        labels_writer.write_labels(
            tmp_path / f"{height}.zarr", predict_rows, NAMES, COLORS, None, (1, height, 2048)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3e6  # 10 MB more would be the image
