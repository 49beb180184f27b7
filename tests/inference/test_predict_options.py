"""What `predict` is asked for beside labels: channels, types, instances, several inputs."""

import csv

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from feedseg import cli
from feedseg.inference import backends, predict
from feedseg.inference.outputs import channel_maps, instances, plan
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.io import images
from feedseg.io.source import page_axes
from feedseg.io.writers import imagej
from feedseg.io.writers import labels as labels_writer
from feedseg.io.writers.formats import formats, suffix
from feedseg.runtime.errors import UserError
from tests.support.fake_model import Fake, run

RNG = np.random.default_rng(0)


def blobs(count: int = 12, side: int = 120) -> np.ndarray:
    """Bright discs of 9 px radius, some of which touch."""
    centers = RNG.integers(12, side - 12, (count, 2))
    y, x = np.mgrid[:side, :side]
    near = [(y - a) ** 2 + (x - b) ** 2 <= 81 for a, b in centers]
    return (np.any(near, 0) * 255).astype(np.uint8)


def rows_of(path) -> list[dict]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_chosen_channels_are_what_the_model_sees(tmp_path):
    channels = RNG.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "all.tif", channels, imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "two.tif", channels[1])
    (found,) = run(tmp_path / "all.tif", tmp_path / "out", channels=(2,))
    (alone,) = run(tmp_path / "two.tif", tmp_path / "out")
    np.testing.assert_array_equal(images.read_label(found), images.read_label(alone))

    def first(image):
        return np.stack([1 - image[..., 0], image[..., 0]], -1)

    (found,) = run(
        tmp_path / "all.tif", tmp_path / "order", Fake(apply=first, channels=2), channels=(3, 1)
    )
    np.testing.assert_array_equal(images.read_label(found)[0], channels[2] > 127)
    with pytest.raises(UserError, match=r"all\.tif: channel\(s\) 4 asked for, it has 3"):
        run(tmp_path / "all.tif", tmp_path / "no", channels=(4,))
    with pytest.raises(UserError, match="the model takes 1; choose one with --channels"):
        run(tmp_path / "all.tif", tmp_path / "no", overlay=True)


@pytest.mark.parametrize("kind", channel_maps.TYPES)
def test_probabilities_in_each_type_are_those_of_float32_rounded(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 256, (2, 40, 50), dtype=np.uint8))
    exact = run(tmp_path / "a.tif", tmp_path / "f4", probabilities="float32", tile=16)[1]
    path = run(tmp_path / "a.tif", tmp_path / kind, probabilities=kind, tile=16)[1]
    stored, maps = tifffile.imread(path), images.read_array(exact)
    assert stored.dtype == kind and stored.shape == (2, 2, 40, 50)
    wanted = np.rint(255 * maps) if kind == "uint8" else maps.astype(kind)
    np.testing.assert_array_equal(images.read_array(path), wanted.astype(np.float32))
    if kind == "uint8":  # ImageJ shows 255 brightest
        with tifffile.TiffFile(path) as tif:
            assert tif.imagej_metadata["max"] == 255 and tif.imagej_metadata["channels"] == 2


@pytest.mark.parametrize("method", instances.METHODS)
@pytest.mark.parametrize("tile", [0, 16])
def test_instances_are_those_of_the_whole_page_with_a_table(tmp_path, method, tile):
    pages = np.stack([blobs(), np.zeros((120, 120), np.uint8), blobs(30)])
    metadata = {"axes": "ZYX", "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", pages, imagej=True, resolution=(2, 2), metadata=metadata)
    rule = InstanceSpec("bright", method=method, min_area_px=20)
    labels, ids, table = run(tmp_path / "a.tif", tmp_path / "out", instances=rule, tile=tile)
    assert [ids.name, table.name] == ["a_instances.tif", "a_instances.csv"]
    found, rows = tifffile.imread(ids), rows_of(table)
    assert found.dtype == np.uint16 and images.read_calibration(ids).pixel_width == 0.5
    for number, page in enumerate(images.read_label(labels), 1):
        wanted = instances.instances(page, 1, method=method, min_area_px=20)
        np.testing.assert_array_equal(found[number - 1], wanted)
        mine = [row for row in rows if row["page"] == str(number)]
        index = range(1, wanted.max() + 1)
        area = ndimage.sum_labels(np.ones_like(wanted), wanted, index)
        assert [int(row["area_px"]) for row in mine] == list(area)
        np.testing.assert_allclose([float(row["area_um2"]) for row in mine], area / 4)
        centers = np.reshape(ndimage.center_of_mass(wanted > 0, wanted, index), (-1, 2)) + 0.5
        places = [(float(r["centroid_y_px"]), float(r["centroid_x_px"])) for r in mine]
        np.testing.assert_allclose(np.reshape(places, (-1, 2)), centers)
    assert len({row["instance"] for row in rows}) > 3
    with tifffile.TiffFile(ids) as tif:
        assert tif.imagej_metadata["LUTs"].shape == (3, 256)


def test_cells_between_membranes(tmp_path):
    image = np.full((60, 60), 255, np.uint8)
    image[::20] = image[:, ::20] = 0
    image = ndimage.grey_erosion(image, 5)
    tifffile.imwrite(tmp_path / "a.tif", image)
    rule = InstanceSpec("dark", separates=True)
    _, ids, table = run(tmp_path / "a.tif", tmp_path / "out", instances=rule)
    assert tifffile.imread(ids).max() == 9 == len(rows_of(table))


def test_more_instances_than_16_bits_are_32_bit_ome(tmp_path):
    ids = np.arange(70_000, dtype=np.uint32).reshape(1, 200, 350)
    imagej.write_instances(tmp_path / "a.tif", ids, None, ids.shape, int(ids.max()))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_ome and tif.pages[0].dtype == np.uint32
        np.testing.assert_array_equal(tif.asarray(), ids[0])


def test_instances_of_no_class_or_beyond_memory_are_refused():
    with pytest.raises(UserError, match="the model has the classes dark, bright"):
        InstanceSpec("nucleus").check(("dark", "bright"))
    with pytest.raises(UserError, match="instances of a page of 2000000 x 1000000 px take about"):
        InstanceSpec("bright").check_memory(1_000_000, 2_000_000)


def test_several_inputs_and_patterns(tmp_path):
    for name in ("day1/a.tif", "day1/b.tif", "day2/c.tif", "day2/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, np.zeros((20, 20), np.uint8))

    def names(inputs):
        return [job.image.name for job in plan.plan_jobs(inputs, tmp_path / "out")]

    assert names([tmp_path / "day?/*.tif"]) == ["a.tif", "b.tif", "c.tif"]
    assert names([tmp_path / "day2", tmp_path / "day1/a.tif"]) == ["c.tif", "a.tif"]
    assert names([tmp_path / "day1", tmp_path / "*/a.tif"]) == ["a.tif", "b.tif"]
    with pytest.raises(UserError, match="no image fits"):
        names([tmp_path / "day3/*.tif"])
    with pytest.raises(UserError, match="is the folder of the images"):
        plan.plan_jobs([tmp_path / "day1/*.tif"], tmp_path / "day1")
    tifffile.imwrite(tmp_path / "day2/C.TIF", np.zeros((20, 20), np.uint8))
    with pytest.raises(UserError, match="several images are called c"):
        names([tmp_path / "day2"])


def test_a_name_with_brackets_that_exists_is_no_pattern(tmp_path):
    tifffile.imwrite(tmp_path / "a[1].tif", np.zeros((20, 20), np.uint8))
    (job,) = plan.plan_jobs(tmp_path / "a[1].tif", tmp_path / "out")
    assert job.labels.name == "a[1]_labels.tif"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--probabilities", "int8"], "probabilities as 'int8': use float32, float16, uint8"),
        (["--watershed"], "need --instances"),
        (["--instances", "a", "--instances-between", "b"], "give one of them"),
        (["--channels", "red"], "channel 'red' asked for, it names none"),
        (["--instances", "a", "--min-area", "-1"], "must not be negative"),
    ],
)
def test_options_that_cannot_be_are_the_users_error(tmp_path, words, message):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint8))
    place = ["--input", str(tmp_path / "a.tif"), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=message):
        cli.run(["predict", "--model", "sstem", *place, *words])


def test_the_command_hands_every_option_on(tmp_path, monkeypatch):
    asked = {}

    def record(model, inputs, output, **options):
        asked.update(options, model=model, inputs=inputs)
        return []

    monkeypatch.setattr(predict, "predict", record)
    words = "predict --model m --input a b --output o --channels 2,1 --probabilities --tables"
    words += " --instances-between membrane --watershed --min-area 9 --uncertainty --overlay"
    words += " --scene 3 --z 2-4 --channel-files _w1,_w2"
    cli.run([*words.split(), "--rounds", "3", "--tile", "64"])
    assert [str(path) for path in asked["inputs"]] == ["a", "b"]
    assert (asked["series"], asked["z"], asked["channel_files"]) == ("3", "2-4", ("_w1", "_w2"))
    assert (
        asked["scale"] is None
        and asked["channels"] == (2, 1)
        and asked["probabilities"] == "float32"
    )
    assert asked["instances"] == InstanceSpec("membrane", True, "watershed", 9)
    assert asked["rounds"] == 3 and asked["tile"] == 64
    assert asked["tables"] and asked["uncertainty"] and asked["overlay"]
    assert not asked["overwrite"] and not asked["dihedral"]


@pytest.fixture
def predicted(tmp_path, monkeypatch):
    """Labels of `feedseg predict` with these words, by file."""

    def of(model, words: str) -> dict[str, np.ndarray]:
        monkeypatch.setattr(backends, "load", lambda *_, **__: model)
        (tmp_path / "model").mkdir(exist_ok=True)
        place = f"predict --model {tmp_path / 'model'} --output {tmp_path / 'out'} --overwrite"
        cli.run([*place.split(), *words.split()])
        return {path.name: tifffile.imread(path) for path in (tmp_path / "out").glob("*.tif")}

    return of


def test_a_slice_of_a_series_by_name(tmp_path, predicted):
    stack = RNG.integers(0, 256, (3, 2, 40, 52), np.uint8)  # Z, C, Y, X
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(stack[0, 0, :9], metadata={"axes": "YX", "Name": "overview"})
        names = {"Channel": {"Name": ["DAPI", "GFP"]}}
        file.write(stack, metadata={"axes": "ZCYX", "Name": "cells", **names})
    place = f"--input {tmp_path / 'a.ome.tif'} --series cells --channels GFP"
    for z, expected in (("2", stack[1, 1]), ("max", stack[:, 1].max(0)), ("2-3", stack[1:, 1])):
        (labels,) = predicted(Fake(), f"{place} --z {z}").values()
        pixels = expected.reshape(-1, 40, 52, 1) / np.float32(255)
        np.testing.assert_array_equal(
            labels.reshape(-1, 40, 52), Fake().apply(pixels).argmax(-1).reshape(-1, 40, 52)
        )
    assert page_axes(tmp_path / "out" / "a_labels.tif") == (("z", 2),)


def test_files_of_channels_are_one_image(tmp_path, predicted):
    channels = RNG.integers(0, 256, (2, 2, 40, 50), np.uint8)
    for name, pixels in zip("ab", channels, strict=True):
        for number, channel in enumerate(pixels):
            tifffile.imwrite(tmp_path / f"{name}_000{number}.tif", channel)

    def second(image):
        return np.stack([1 - image[..., 1], image[..., 1]], -1)

    model = Fake(apply=second, channels=2, halo=0)
    found = predicted(model, f"--input {tmp_path} --channel-files _0000,_0001")
    assert found.keys() == {"a_labels.tif", "b_labels.tif"}
    for labels, pixels in zip(
        (found["a_labels.tif"], found["b_labels.tif"]), channels, strict=True
    ):
        np.testing.assert_array_equal(labels, pixels[1] > 127)
    with pytest.raises(UserError, match=r"4 of 4 images failed.*--channel-files"):
        predicted(model, f"--input {tmp_path}")


@pytest.mark.parametrize("form", formats())
def test_every_label_format_holds_the_same_ids(tmp_path, form):
    if form == "ome-zarr":
        pytest.importorskip("zarr")
    stack = RNG.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    metadata = {"axes": "TYX", "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(2, 2), metadata=metadata)
    plain, *_ = run(tmp_path / "a.tif", tmp_path / "out", form="tiff", tile=16)
    other, *_ = run(tmp_path / "a.tif", tmp_path / form, form=form, tile=16)
    assert other.name == f"a_labels{suffix(form)}"
    np.testing.assert_array_equal(images.read_label(other), images.read_label(plain))
    assert images.read_calibration(other).pixel_width == 0.5
    assert page_axes(other) == (("t", 3),)


def test_zarr_images_are_read_named_and_not_mixed_with_their_results(tmp_path):
    pytest.importorskip("zarr")
    image = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/b.tif", image)
    labels = [image // 200]
    labels_writer.write_labels(
        tmp_path / "in/a.ome.zarr", iter(labels), ("x", "y"), [(0, 0, 0)] * 2, None, (1, 40, 50)
    )
    found = plan.plan_jobs(tmp_path / "in/*", tmp_path / "out")
    assert [job.labels.name for job in found] == ["a_labels.tif", "b_labels.tif"]
    deep = plan.plan_jobs(tmp_path / "**/*", tmp_path / "out")
    assert [job.labels.name for job in deep] == ["a_labels.tif", "b_labels.tif"]
    (job,) = plan.plan_jobs(tmp_path / "in/a.ome.zarr", tmp_path / "in")
    assert job.labels.parent == tmp_path / "in"
    assert len(run(tmp_path / "in", tmp_path / "out")) == 2
