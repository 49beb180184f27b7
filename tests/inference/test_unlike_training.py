"""Images that are not like those of the training: other ranges, scales, axes; said, and mended."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg.inference import backends, predict, remarks, segment, segmenter, tiling
from feedseg.inference.predictor import TrainingImages
from feedseg.io import resample
from feedseg.io.object_size import Diameters
from feedseg.io.source import ImageSource
from feedseg.runtime import notes
from feedseg.runtime.errors import UserError
from tests.support.fake_model import Fake

RNG = np.random.default_rng(0)
PLAIN = Fake()


def squares(side: int, count: int = 6, size: int = 96) -> np.ndarray:
    """Bright squares on black, [size, size] uint8."""
    image = np.zeros((size, size), np.uint8)
    step = size // 3
    for number in range(count):
        y, x = (1 + step * each for each in divmod(number, 3))
        image[y : y + side, x : x + side] = 255
    return image


@pytest.fixture(autouse=True)
def texts():
    with notes.collected() as said:
        yield said


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`predict.predict` of one array with a fake model; its labels."""

    def of(array, model=PLAIN, write=tifffile.imwrite, **options):
        monkeypatch.setattr(backends, "load", lambda *_, **__: model)
        (tmp_path / "model").mkdir(exist_ok=True)
        name = f"{len(list(tmp_path.glob('*.tif')))}.tif"
        write(tmp_path / name, array)
        out = tmp_path / "out"
        files = predict.predict(tmp_path / "model", tmp_path / name, out, progress=False, **options)
        return tifffile.imread(files[0])

    return of


@pytest.mark.parametrize("factor", [1, 12, 257])
def test_a_range_that_cannot_be_right_is_said_and_mended(run, texts, factor):
    """8, 12 and 16 bit of one scene as uint16, for a model that takes the range of the type."""
    image = squares(20)
    raw = image.astype(np.uint16) * factor
    labels = run(raw)
    assert labels.any() == (factor == 257)
    said = [text for text in texts if "the highest gray value" in text]
    assert len(said) == (factor < 257) and all(f"--range 0-{255 * factor}" in t for t in said)
    expected = run(image)
    for options in ({"value_range": (0, 255 * factor)}, {"normalization": "image_percentile"}):
        np.testing.assert_array_equal(run(raw, **options), expected)


def test_images_as_dim_as_those_of_the_training_are_not_remarked_on(run, texts):
    model = Fake(training_images=TrainingImages(brightest=0.05))
    run(squares(20).astype(np.uint16) * 12, model)
    assert not any("highest gray value" in text for text in texts)
    run(squares(20) // 255, model)  # 1 bit
    assert any("highest gray value, 1," in text for text in texts)


def test_integers_of_python_are_remarked_on(texts, monkeypatch):
    monkeypatch.setattr(backends, "read", lambda *_: Fake())
    monkeypatch.setattr(backends, "for_images", lambda model, *_: model)
    model = segmenter.Segmenter("any")
    image = squares(20).astype(np.int64)
    with notes.collected() as said:
        assert not model.predict(image).labels.any()
    assert "range of uint16" in said[0]
    expected = model.predict(squares(20)).labels
    np.testing.assert_array_equal(model.predict(image, value_range=(0, 255)).labels, expected)


def test_overrides_that_are_none(run):
    for options, text in (
        (dict(normalization="x"), "choose one of dtype_range"),
        (dict(normalization="dtype_range", value_range=(0, 1)), "exclude each other"),
        (dict(value_range=(5, 5)), "the first must be below"),
        (dict(scale=0.0), "--scale 0: from 0.0625 to 16"),
        (dict(axes="CC"), "name each once"),
    ):
        with pytest.raises(UserError, match=text):
            run(squares(20), **options)


def test_every_member_of_an_ensemble_gets_the_rule():
    model = Fake(contracts=(("dtype_range", (0, 100)), ("image_percentile", (1, 99))))
    changed = segment.with_normalization(model, limits=(0, 4095))
    assert changed.contracts == (("range", (0, 4095)),) * 2
    assert segment.with_normalization(model) is model


SEEN = TrainingImages(objects={"bright": Diameters(18.0, 22.0, 24.0)})


def test_objects_of_another_size_are_said_with_the_scale(run, texts):
    run(squares(20), Fake(training_images=SEEN))
    assert not any("--scale" in text for text in texts)
    large = np.kron(squares(20), np.ones((4, 4), np.uint8))
    run(large, Fake(training_images=SEEN))
    (said,) = [text for text in texts if "--scale" in text]
    assert "bright of 90" in said
    assert "--scale 0.24" in said or "--scale 0.25" in said


def test_a_scale_shows_the_network_another_size_and_keeps_that_of_the_results(run, texts):
    shapes = []

    def apply(image):
        shapes.append(image.shape[1:3])
        return Fake().apply(image)

    large = np.kron(squares(20), np.ones((4, 4), np.uint8))
    labels = run(large, Fake(apply, training_images=SEEN), scale=0.25)
    assert labels.shape == large.shape and set(shapes) == {(96, 96)}
    assert (labels == (large > 0)).mean() > 0.98
    assert not any("--scale" in text for text in texts)


def calibrated(height: float, width: float = 0.0):
    """A writer of ImageJ files with pixels of this size, µm."""

    def write(path, array):
        resolution = (1 / (width or height), 1 / height)
        tifffile.imwrite(path, array, imagej=True, resolution=resolution, metadata={"unit": "um"})

    return write


def seen_by(sizes: set, **images) -> Fake:
    """A model trained on such images that notes the sizes it sees."""

    def apply(image):
        sizes.add(image.shape[1:3])
        return Fake().apply(image)

    return Fake(apply, training_images=TrainingImages(**images))


@pytest.mark.parametrize("pixel, side", [(0.25, 48), (1.0, 192), (0.46, 96), (0.54, 96)])
def test_images_come_to_the_pixel_size_of_the_training(run, texts, pixel, side):
    sizes = set()
    labels = run(squares(20), seen_by(sizes, pixel_um=0.5), calibrated(pixel))
    assert sizes == {(side, side)} and labels.shape == (96, 96)
    assert (labels == (squares(20) > 0)).mean() > 0.96
    said = f"pixels of {pixel:.3g} µm, in training 0.5 µm: seen {pixel / 0.5:.3g} times"
    assert [said in text for text in texts] == [True] * (side != 96)


def test_a_given_scale_counts(run, texts):
    sizes = set()
    run(squares(20), seen_by(sizes, pixel_um=0.5), calibrated(0.25), scale=1)
    assert sizes == {(96, 96)} and not texts


@pytest.mark.parametrize(
    "write, text",
    [
        (tifffile.imwrite, "states no pixel size, in training 0.5 µm"),
        (calibrated(0.5, 0.25), "not square"),
        (calibrated(264.0), "too far apart to be true"),
    ],
)
def test_images_without_a_pixel_size_to_go_by_are_taken_as_they_are(run, texts, write, text):
    sizes = set()
    run(squares(20), seen_by(sizes, pixel_um=0.5), write)
    assert sizes == {(96, 96)} and [text in each for each in texts] == [True]


def test_models_that_know_no_pixel_size_rescale_nothing(run, texts):
    sizes = set()
    run(squares(20), seen_by(sizes), calibrated(0.25))
    assert sizes == {(96, 96)} and not texts


def test_all_results_of_a_rescaled_image_have_its_size(run, tmp_path):
    wanted = dict(probabilities="float32", overlay=True, tables=True)
    model = seen_by(set(), pixel_um=0.5)
    run(squares(20), model, calibrated(0.125), **wanted)
    out = tmp_path / "out"
    assert tifffile.imread(out / "0_probabilities.tif").shape == (2, 96, 96)
    rows = csv.DictReader((out / "0_classes.csv").open())
    areas = {row["class_name"]: int(row["area_px"]) for row in rows}
    assert sum(areas.values()) == 96 * 96 and areas["bright"] > 1000


@pytest.mark.parametrize("tile", [32, 64])
@pytest.mark.parametrize("scale", [0.4, 2.3])
def test_a_rescaled_page_comes_by_rows_as_it_would_at_once(tile, scale):
    pages = RNG.integers(0, 256, (2, 150, 70, 1), np.uint8)
    source = ImageSource(Path("a"), pages.shape, pages.dtype, lambda p, a, b: pages[p, a:b])
    options = dict(tile=tile, scale=scale)
    slabs = list(segment.predict_rows(PLAIN, source, **options))
    found = np.concatenate(slabs)
    size = tuple(round(side * scale) for side in (150, 70))
    for page, result in zip(pages, found.reshape(2, 150, 70, 2), strict=True):
        seen = resample.image(np.float32(page) / 255, size)
        whole = tiling.apply_tiled(seen, PLAIN.apply, segment.tiles_for(PLAIN, *size, tile))
        expected = resample.image(whole, (150, 70))
        np.testing.assert_allclose(result, expected, atol=1e-5)
    for done in (37, 160):
        rest = np.concatenate(list(segment.predict_rows(PLAIN, source, done=done, **options)))
        np.testing.assert_allclose(rest, found[done:], atol=1e-6)


def test_arrays_are_rescaled_by_the_pixel_size_given(monkeypatch, texts):
    sizes = set()
    monkeypatch.setattr(backends, "read", lambda *_: seen_by(sizes, pixel_um=0.5))
    monkeypatch.setattr(backends, "for_images", lambda model, *_: model)
    labels = segmenter.Segmenter("any").predict(squares(20), pixel_um=0.25).labels
    assert sizes == {(48, 48)} and labels.shape == (96, 96)
    with pytest.raises(UserError, match="pixel_um=-1"):
        segmenter.Segmenter("any").predict(squares(20), pixel_um=-1)


def test_images_of_nothing_are_said(run, texts):
    run(np.zeros((20, 20), np.uint8))
    assert texts == [text for text in texts if text.endswith("0.tif: only dark was found")]


def test_axes_of_files(run, texts):
    array = np.stack([squares(20), RNG.integers(0, 9, (96, 96), np.uint8)])
    plain = dict(write=lambda p, a: tifffile.imwrite(p, a, photometric="minisblack"))
    expected = run(squares(20))
    np.testing.assert_array_equal(run(array, axes="CYX", channels=(1,), **plain), expected)
    np.testing.assert_array_equal(run(array, **plain)[0], expected)  # two pages
    last = np.ascontiguousarray(array.transpose(1, 2, 0))
    with pytest.raises(UserError, match="--axes YXC or PYX"):
        run(last, **plain)
    np.testing.assert_array_equal(run(last, axes="YXC", channels=(1,), **plain), expected)


def test_axes_of_arrays_are_those_of_files(monkeypatch):
    monkeypatch.setattr(backends, "read", lambda *_: Fake())
    monkeypatch.setattr(backends, "for_images", lambda model, *_: model)
    model = segmenter.Segmenter("any")
    color = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    with pytest.raises(UserError, match=r"3 channel\(s\), the model takes 1"):
        model.predict(color)  # not 20 pages of 30 x 3 px
    assert model.predict(color, axes="PYX").labels.shape == (20, 30, 3)
    gray = np.repeat(color[..., :1], 3, 2)
    np.testing.assert_array_equal(model.predict(gray).labels, model.predict(gray[..., 0]).labels)
    with pytest.raises(UserError, match="axes= in Python"):
        model.predict(color[..., :2])
    stack = RNG.integers(0, 256, (2, 3, 16, 20), np.uint8)
    assert model.predict(stack, axes="TZYX").labels.shape == (2, 3, 16, 20)
    assert model.predict(stack[0], axes="PYX").probabilities.shape == (3, 16, 20, 2)


def test_only_the_first_pixels_are_looked_at():
    check = remarks.SizeCheck(Fake(training_images=SEEN))
    for _ in range(100):
        check.add(np.zeros((1000, 1000), np.uint8))
    assert sum(rows.size for rows in check._rows) < 2 * remarks._SEEN_PX


def test_objects_of_several_images_count_together(texts):
    """One cell in each."""
    check = remarks.SizeCheck(Fake(training_images=SEEN))
    for name in range(6):
        check.add(np.kron(squares(20, 1), np.ones((4, 4), np.uint8)) // 255)
        check.end_image(f"{name}.tif", 384)
    check.say()
    assert len(texts) == 1 and "0.tif: bright of 90" in texts[0]


def test_rows_of_an_image_that_failed_do_not_count(texts):
    check = remarks.SizeCheck(Fake(training_images=SEEN))
    check.add(np.ones((7, 96), np.uint8))
    for name in range(6):
        check.begin_image()
        check.add(squares(20) // 255)
        check.end_image(f"{name}.tif", 96)
    check.say()
    assert not texts
