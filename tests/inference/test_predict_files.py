"""Prediction on files: what is written, what is refused, and that tiles leave no trace."""

import csv
import json
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg.inference import backends, predict
from feedseg.inference.outputs import channel_maps, plan, preview, record
from feedseg.inference.trained import with_disagreement
from feedseg.inference.uncertainty import disagreement
from feedseg.io import colors, images
from feedseg.runtime import notes
from feedseg.runtime.errors import BadImage, InUse, SaveFailed, UserError
from tests.support.fake_model import COLORS, NAMES, Fake, bright, run, stand_in

RNG = np.random.default_rng(0)


def expected(image: np.ndarray) -> np.ndarray:
    """Labels of one page [H, W] in [0, 1] without tiles."""
    padding = [(0, -n % 4) for n in image.shape]
    whole = np.pad(image.astype(np.float32), padding, mode="symmetric")[None, ..., None]
    return bright(whole)[0, : image.shape[0], : image.shape[1]].argmax(-1)


@pytest.mark.parametrize("size", [(61, 90), (7, 3), (64, 64)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("tile", [0, 16])
def test_types_and_sizes(tmp_path, size, dtype, tile):
    unit = RNG.random(size).astype(np.float32)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    image = (unit * top).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image)
    (written,) = run(tmp_path / "a.tif", tmp_path / "out", tile=tile)
    assert written == tmp_path / "out" / "a_labels.tif"
    labels = images.read_label(written)
    assert labels.dtype == np.uint8 and (0 < labels.mean() < 1 or min(size) < 8)
    np.testing.assert_array_equal(labels[0], expected(image / top))


def test_a_stack_keeps_pages_calibration_and_probabilities(tmp_path):
    stack = RNG.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 50.0}
    tifffile.imwrite(
        tmp_path / "a.tif", stack, imagej=True, resolution=(0.25, 0.25), metadata=metadata
    )
    labels, probabilities = run(
        tmp_path / "a.tif", tmp_path / "out", probabilities="float32", tile=24
    )
    assert probabilities.name == "a_probabilities.tif"
    for path in (labels, probabilities):
        assert images.read_calibration(path) == images.Calibration(4.0, 4.0, "nm", 50.0)
    maps = images.read_array(probabilities)
    assert maps.shape == (3, 40, 50, 2) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(images.read_label(labels), maps.argmax(-1))
    np.testing.assert_array_equal(images.read_label(labels)[1], expected(stack[1] / 255))
    with tifffile.TiffFile(probabilities) as tif:
        assert tif.imagej_metadata["Labels"] == list(NAMES) * 3


def test_limits_are_those_of_the_page_not_of_the_tile(tmp_path):
    """A ramp: limits per tile would give every tile both classes."""
    ramp = np.tile(np.linspace(100, 5000, 200).astype(np.uint16), (60, 1))
    tifffile.imwrite(tmp_path / "a.tif", np.stack([ramp, ramp // 4]))
    trained = Fake(normalization="image_percentile", percentiles=(0.0, 100.0))
    (path,) = run(tmp_path / "a.tif", tmp_path / "out", trained, tile=16)
    labels = images.read_label(path)[:, 5:-5, 5:-5]
    assert labels[:, :, :85].max() == 0 and labels[:, :, 105:].min() == 1
    np.testing.assert_array_equal(labels[0, 3], labels[1, 3])


def test_a_folder_with_equal_stems(tmp_path):
    gray = RNG.integers(0, 256, (20, 20), dtype=np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "a.TIF", "b.bmp"):
        writer = tifffile.imwrite if name == "a.TIF" else lambda p, x: Image.fromarray(x).save(p)
        writer(folder / name, gray)
    (folder / "notes.txt").touch()
    written = run(folder, tmp_path / "out")
    names = {"a_png_labels.tif", "a_tif_labels.tif", "b_bmp_labels.tif"}
    assert {p.name for p in written} == names == {p.name for p in (tmp_path / "out").iterdir()}
    assert plan.output_names([Path("a.png"), Path("a_png.tif")]) == ["a", "a_png"]
    with pytest.raises(UserError, match="rename"):
        plan.output_names([Path("x/A.png"), Path("x/a.png")])


def test_nothing_is_overwritten_unless_asked(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(RNG.integers(0, 256, (20, 20), dtype=np.uint8)).save(tmp_path / name)
    out = tmp_path / "out"
    out.mkdir()
    (out / "b_labels.tif").write_text("mine")
    never = Fake(apply=lambda image: pytest.fail("computed before the check"))
    with pytest.raises(UserError, match=r"b_labels\.tif: exists; add --overwrite"):
        run(tmp_path, out, never)
    assert (out / "b_labels.tif").read_text() == "mine" and len(list(out.iterdir())) == 1
    run(tmp_path, out, overwrite=True)
    assert images.read_label(out / "b_labels.tif").shape == (1, 20, 20)


def test_the_model_is_loaded_only_when_all_is_well(tmp_path, monkeypatch):
    loaded = stand_in(monkeypatch)
    image = tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 256, (20, 20), dtype=np.uint8)).save(image)
    options = {"overwrite": False, "tile": 0, "progress": False}
    run = tmp_path / "run"
    predict.predict(run, image, tmp_path / "out", checkpoint="latest", **options)
    with pytest.raises(UserError, match="exists"):
        predict.predict(run, image, tmp_path / "out", checkpoint="best", **options)
    assert loaded == [(run, "latest")]


def test_a_stopped_command_goes_on_where_it_was(tmp_path, monkeypatch):
    folder, calls = tmp_path / "in", []
    folder.mkdir()
    for name in "abc":
        tifffile.imwrite(folder / f"{name}.tif", RNG.integers(0, 256, (40, 30), dtype=np.uint8))
    kinds = dict(probabilities="float32", tile=16, progress=False)

    def counted(image):
        calls.append(1)
        return bright(image)

    stand_in(monkeypatch, counted)
    predict.predict(tmp_path / "run", folder, tmp_path / "whole", **kinds)
    of_one = len(calls) // 3

    def interrupted(image):
        if len(calls) == of_one + 3:
            raise KeyboardInterrupt
        return counted(image)

    calls.clear()
    stand_in(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict.predict(tmp_path / "run", folder, tmp_path / "out", **kinds)
    done = {path.name for path in (tmp_path / "out").iterdir()}
    assert done == {"a_labels.tif", "a_probabilities.tif", record.NAME}
    calls.clear()
    stand_in(monkeypatch, counted)
    written = predict.predict(tmp_path / "run", folder, tmp_path / "out", **kinds)
    assert len(calls) == 2 * of_one and len(written) == 4
    for path in (tmp_path / "whole").glob("*.tif"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert predict.predict(tmp_path / "run", folder, tmp_path / "out", **kinds) == []
    tifffile.imwrite(folder / "b.tif", np.zeros((40, 31), np.uint8))
    with pytest.raises(UserError, match=r"b_labels\.tif and 1 more: exists"):
        predict.predict(tmp_path / "run", folder, tmp_path / "out", **kinds)


def test_the_user_is_told_of_windows_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in "ab":
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", np.full((20, 20), 255, np.uint8))
    monkeypatch.setattr(backends, "load", lambda *_, **__: Fake(window=32))
    predict.predict(tmp_path / "run", tmp_path / "in", tmp_path / "out")
    assert capsys.readouterr().err.count("windows of 32 px, blended over 16 px") == 1
    predict.predict(tmp_path / "run", tmp_path / "in", tmp_path / "quiet", progress=False)
    assert not capsys.readouterr().err


def test_a_command_stopped_between_the_files_of_an_image_goes_on(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", RNG.integers(0, 256, (20, 30), dtype=np.uint8))
    stand_in(monkeypatch)
    command = (tmp_path / "run", tmp_path / "in", tmp_path / "out")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(channel_maps.Planes, "write", killed)
        predict.predict(*command, probabilities="uint8", progress=False)
    assert (tmp_path / "out" / "a_labels.tif").exists()
    with pytest.raises(UserError, match="exists"):  # another command
        predict.predict(*command, progress=False)
    assert len(predict.predict(*command, probabilities="uint8", progress=False)) == 2
    assert predict.predict(*command, probabilities="uint8", progress=False) == []


def test_a_bad_image_does_not_stop_the_others(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ac":
        tifffile.imwrite(folder / f"{name}.tif", RNG.integers(0, 256, (20, 20), dtype=np.uint8))
    (folder / "b.tif").write_bytes(b"II*\0")
    (folder / "d.tif").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 4 images failed, the first: .*b\.tif"):
        run(folder, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_labels.tif", "c_labels.tif"}
    assert capsys.readouterr().err.count("feedseg: ") == 2


def test_color_and_grey(tmp_path):
    gray = RNG.integers(0, 256, (20, 24), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(np.repeat(gray[..., None], 3, -1)).save(path)
    (written,) = run(path, tmp_path / "grey")
    np.testing.assert_array_equal(images.read_label(written)[0], expected(gray / 255))
    Image.fromarray(RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    run(path, tmp_path / "color", Fake(channels=3))
    with pytest.raises(UserError, match=r"a\.png: 3 channel\(s\), the model takes 1; choose"):
        run(path, tmp_path / "out")
    Image.fromarray(gray).save(path)
    with pytest.raises(UserError, match="give the color image"):
        run(path, tmp_path / "out", Fake(channels=3))
    assert not (tmp_path / "out").exists()


def test_a_bad_file_is_named_and_finished_ones_stay(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", RNG.integers(0, 256, (20, 20), dtype=np.uint8))
    tifffile.imwrite(folder / "b.tif", RNG.integers(0, 256, (20, 80), dtype=np.uint8))
    whole = (folder / "b.tif").read_bytes()
    (folder / "b.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImage, match=r"b\.tif"):
        run(folder, out, probabilities="float32")
    assert {p.name for p in out.iterdir()} == {"a_labels.tif", "a_probabilities.tif"}


def test_values_and_memory(tmp_path):
    path, out = tmp_path / "a.tif", tmp_path / "out"
    tifffile.imwrite(path, np.full((20, 20), 700, np.float32))
    with pytest.raises(UserError, match="from 700 to 700, the model takes 0 to 1"):
        run(path, out)
    run(path, out, Fake(normalization="image_percentile"))
    tifffile.imwrite(path, RNG.integers(0, 256, (100, 100), dtype=np.uint8))

    def exhausted(image):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    def not_a_number(image):
        return bright(image) * np.nan

    with pytest.raises(UserError, match=r"a\.tif: out of memory for the smallest tiles"):
        run(path, out, Fake(apply=exhausted), overwrite=True, probabilities="float32")
    with pytest.raises(UserError, match=r"a\.tif: the model gives NaN"):
        run(path, out, Fake(apply=not_a_number), overwrite=True)
    assert [p.name for p in out.iterdir()] == ["a_labels.tif"]  # of the good run, nothing torn


def test_tiles_are_halved_where_memory_does_not_suffice(tmp_path, capsys):
    image = RNG.integers(0, 256, (100, 90), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    seen = []

    def small(window):
        seen.append(window.shape[1])
        if window.shape[1] > 32:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return bright(window)

    (path,) = run(tmp_path / "a.tif", tmp_path / "out", Fake(apply=small))
    assert seen[:3] == [100, 52, 28] and "now tiles of 28 px" in capsys.readouterr().err
    np.testing.assert_array_equal(images.read_label(path)[0], expected(image / 255))


def test_tables_and_an_overlay(tmp_path):
    image = np.zeros((2, 60, 50), np.uint8)
    image[0, 10:30, 20:40], image[1, 40:50] = 255, 255
    metadata = {"axes": "ZYX", "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, resolution=(2, 2), metadata=metadata)
    files = run(tmp_path / "a.tif", tmp_path / "out", overlay=True, tables=True, tile=16)
    names = ["a_labels.tif", "a_overlay.png", "a_classes.csv", "a_objects.csv"]
    assert [file.name for file in files] == names
    labels = images.read_label(files[0])
    with files[3].open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["class_name"] == "bright"]
    assert [(row["page"], row["touches_border"]) for row in rows] == [("1", "0"), ("2", "1")]
    for row, page in zip(rows, labels, strict=True):
        assert float(row["area_um2"]) == page.sum() / 4
    picture = np.asarray(Image.open(files[1]))
    inside = labels[0] == 1
    assert (picture[inside] == (255, 255, 153)).all(-1).mean() > 0.8  # white under 40 % yellow
    assert (picture[~inside][:, 0] == picture[~inside][:, 2]).all()


def test_a_large_overlay_is_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "SIDE", 20)
    ramp = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (61, 1))
    tifffile.imwrite(tmp_path / "a.tif", ramp)
    files = run(tmp_path / "a.tif", tmp_path / "out", overlay=True, tile=16)
    labels = images.read_label(files[0])[0, ::4, ::4]
    expected = colors.overlay(ramp[::4, ::4], labels, COLORS)
    np.testing.assert_array_equal(np.asarray(Image.open(files[1])), expected)


def test_a_full_disk_is_the_users_error_and_leaves_nothing(tmp_path):
    """A limit on the file size fails like a full disk."""
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 256, (200, 200), dtype=np.uint8))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(SaveFailed, match=r"cannot be written .*free space"):
            run(tmp_path / "a.tif", tmp_path / "out", probabilities="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "out").iterdir())


def test_places_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    for inputs, output, text in (
        (tmp_path / "empty", tmp_path / "out", "no image in this folder"),
        (tmp_path / "missing", tmp_path / "out", "no such file"),
        (tmp_path, tmp_path, "another --output"),
        (tmp_path / "a.png", tmp_path / "a.png", "is a file; name a folder"),
    ):
        with pytest.raises(UserError, match=text):
            run(inputs, output)


def test_progress_goes_to_stderr_as_plain_lines_without_a_terminal(tmp_path, capsys):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    planned = plan.plan_jobs(tmp_path / "a.png", tmp_path / "out")
    predict.predict_files(Fake(), planned, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines() == [
        f"{tmp_path / 'a.png'} -> {tmp_path / 'out' / 'a_labels.tif'}"
    ]


def test_uncertainty_is_written_and_left_out_of_the_labels(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (2, 20, 32), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")

    def answers(image):
        return np.stack([bright(image), bright(1 - image)])

    trained = with_disagreement(Fake(answers=answers))
    files = run(tmp_path / "a.tif", tmp_path / "out", trained, uncertainty=True)
    assert [file.name for file in files] == ["a_labels.tif", "a_uncertainty.tif"]
    spread = tifffile.imread(files[1])
    probability = np.stack(
        [bright(x) for x in (image[..., None] / 255, 1 - image[..., None] / 255)]
    )
    np.testing.assert_allclose(spread, disagreement(probability), atol=1e-5)
    assert spread.min() >= 0 and 0.05 < spread.max() <= 1
    plain = run(tmp_path / "a.tif", tmp_path / "plain")
    np.testing.assert_array_equal(tifffile.imread(files[0]), tifffile.imread(plain[0]))
    with pytest.raises(UserError, match="exists; add --overwrite"):
        plan.refuse_existing([plan.ImageTask(tmp_path / "a.tif", files[1])])


def test_a_network_of_whole_images_sees_windows_as_in_training(tmp_path):
    shapes = set()

    def apply(window):
        shapes.add(window.shape)
        return bright(window)

    for name, size in (("small", (5, 9)), ("large", (40, 33))):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full(size, 200, np.uint8))
    trained = Fake(apply=apply, window=16)
    files = run(tmp_path, tmp_path / "out", trained)
    assert shapes == {(1, 16, 16, 1)}
    assert [tifffile.imread(file).shape for file in files] == [(40, 33), (5, 9)]
    with pytest.raises(UserError, match="16 px as in training"):
        run(tmp_path, tmp_path / "other", trained, tile=32)


def test_equal_names_of_several_folders_keep_their_folders(tmp_path):
    for day in ("day1", "day2"):
        (tmp_path / "in" / day).mkdir(parents=True)
        value = 0 if day == "day1" else 255
        for name in "ab":
            image = np.full((8, 8), value, np.uint8)
            Image.fromarray(image).save(tmp_path / "in" / day / f"{name}.png")
    written = run(tmp_path / "in" / "day?" / "*.png", tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in written) == [
        "day1/a_labels.tif",
        "day1/b_labels.tif",
        "day2/a_labels.tif",
        "day2/b_labels.tif",
    ]
    assert tifffile.imread(tmp_path / "out/day2/a_labels.tif")[4, 4] == 1
    assert not tifffile.imread(tmp_path / "out/day1/a_labels.tif").any()


def test_sub_folders_that_are_passed_over_are_said(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in" / name)
    with notes.collected() as texts:
        (job,) = plan.plan_jobs(tmp_path / "in", tmp_path / "out")
        assert job.image.name == "a.png" and "/**/*" in texts[0]
        assert len(plan.plan_jobs(tmp_path / "in" / "**" / "*", tmp_path / "out")) == 2
    assert len(texts) == 1


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path):
    for folder in ("br[x]", "brx"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / folder / "a[1].png")
    for where in ("br[x]/*.png", "br[x]/a[1].png", "br[x]"):
        (job,) = plan.plan_jobs(tmp_path / where, tmp_path / "out")
        assert job.image == tmp_path / "br[x]" / "a[1].png"


def days(root: Path, *names: str) -> Path:
    """Small images below a folder, each of another gray value."""
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 250 * index // len(names), np.uint8)).save(root / name)
    return root


def places(inputs, output: Path) -> list[str]:
    return [
        job.labels.relative_to(output).as_posix().removesuffix("_labels.tif")
        for job in plan.plan_jobs(inputs, output)
    ]


def test_names_are_flat_unless_folders_share_one(tmp_path):
    root, out = days(tmp_path, "day1/a.png", "day1/a.jpg", "day2/b.png"), tmp_path / "out"
    assert places(root / "day?/*", out) == ["a_jpg", "a_png", "b_png"]
    assert places(root / "day?/*.png", out) == ["a", "b"]
    days(root, "day2/a.png")
    assert places(root / "day?/*", out) == ["day1/a_jpg", "day1/a_png", "day2/a_png", "day2/b_png"]


def test_results_stay_in_the_output_folder_whatever_the_path(tmp_path, monkeypatch):
    days(tmp_path, "data/day1/a.png", "here/data/day1/a.png")
    monkeypatch.chdir(tmp_path / "here")
    inputs = [Path("../data/day1/a.png"), Path("data/day1/a.png")]
    assert places(inputs, Path("out")) == ["data/day1/a", "here/data/day1/a"]


def test_a_pattern_of_folders_stands_for_their_images(tmp_path):
    root = days(tmp_path, "day1/a.png", "day2/a.png", "day2/.b.png", "day3/deep/c.png")
    assert places(root / "day?", tmp_path / "out") == ["day1/a", "day2/a"]
    with pytest.raises(UserError, match="no image fits"):
        places(root / "day[3-4]", tmp_path / "out")


def test_sub_folders_of_results_are_no_folders_of_images(tmp_path):
    root = days(tmp_path / "in", "day1/a.png", "day2/a.png")
    with pytest.raises(UserError, match=r"in/day1: is the folder of the images"):
        places(root / "day?/*.png", root)
    run(root / "**/*", root / "out")
    with pytest.raises(UserError, match=r"out/day1: is the folder of the images"):
        places(root / "**/*", root / "out")


def test_results_in_sub_folders_are_not_made_again(tmp_path, monkeypatch):
    root, run_folder = days(tmp_path / "in", "day1/a.png", "day2/a.png"), tmp_path / "run"
    days(tmp_path / "other", "a.png")
    (root / "day3").mkdir()
    (root / "day3" / "a.png").symlink_to(root / "day1" / "a.png")
    stand_in(monkeypatch)
    kinds = dict(tables=True, overlay=True, probabilities="uint8", uncertainty=False)
    command = (run_folder, root / "day?/*.png", tmp_path / "out")
    assert len(predict.predict(*command, **kinds, progress=False)) == 15
    assert (tmp_path / "out/day2/a_objects.csv").exists()
    assert predict.predict(*command, **kinds, progress=False) == []
    (tmp_path / "out/day2/a_overlay.png").unlink()
    with pytest.raises(UserError, match=r"day2/a_labels\.tif and 3 more: exists"):
        predict.predict(*command, **kinds, progress=False)


@pytest.mark.parametrize("form", ["ome-tiff", "ome-zarr"])
def test_every_form_is_written_in_sub_folders(tmp_path, monkeypatch, form):
    if form == "ome-zarr":
        pytest.importorskip("zarr")
    root = days(tmp_path / "in", "day1/a.png", "day2/a.png")
    stand_in(monkeypatch)
    command = (tmp_path / "run", root / "day?/*.png", tmp_path / "out")
    written = predict.predict(*command, form=form, progress=False)
    assert [path.parent.name for path in written] == ["day1", "day2"]
    assert predict.predict(*command, form=form, progress=False) == []


def test_a_result_of_another_image_is_not_taken_for_ones_own(tmp_path, monkeypatch):
    root = days(tmp_path, "day1/a.png", "day2/a.png", "other/a.png")
    stand_in(monkeypatch)

    def again(where: str, **options):
        return predict.predict(tmp_path / "run", root / where, tmp_path / "out", **options)

    assert len(again("day?/*.png")) == 2 and len(again("other/a.png")) == 1
    with pytest.raises(UserError, match=r"out/a_labels\.tif: exists"):
        again("day1/a.png")  # it is in out/day1
    assert len(again("day1/a.png", overwrite=True)) == 1
    with pytest.raises(UserError, match=r"out/a_labels\.tif: exists"):
        again("other/a.png")


def test_a_record_of_the_former_form_is_read(tmp_path, monkeypatch):
    """One object, rewritten for each image."""
    root = days(tmp_path / "in", "a.png", "b.png")
    stand_in(monkeypatch)
    command = (tmp_path / "run", root, tmp_path / "out")
    predict.predict(*command, progress=False)
    path = tmp_path / "out" / record.NAME
    stated, *lines = map(json.loads, path.read_text().splitlines())
    entry = next(line for line in lines if line.get("done") == "a_labels.tif")
    entry = {key: entry[key] for key in ("image", "bytes", "mtime_ns", "files")}
    former = {"what": stated["what"], "done": {"a_labels.tif": entry}, "begun": "b_labels.tif"}
    path.unlink()
    path.with_suffix(".json").write_text(json.dumps(former))
    assert predict.predict(*command, progress=False) == [tmp_path / "out" / "b_labels.tif"]
    (tmp_path / "out" / "b_labels.tif").unlink()
    assert predict.predict(*command, progress=False) == [tmp_path / "out" / "b_labels.tif"]
    assert predict.predict(*command, progress=False) == []


def test_a_record_keeps_what_each_model_has_made(tmp_path, monkeypatch):
    root = days(tmp_path / "in", "a.png", "b.png")
    stand_in(monkeypatch)
    for name, tile in (("a.png", 16), ("b.png", 32)):
        assert predict.predict(tmp_path / "run", root / name, tmp_path / "out", tile=tile)
    assert predict.predict(tmp_path / "run", root / "a.png", tmp_path / "out", tile=16) == []
    assert predict.predict(tmp_path / "run", root / "b.png", tmp_path / "out", tile=32) == []
    with pytest.raises(UserError, match=r"a_labels\.tif: exists"):
        predict.predict(tmp_path / "run", root / "a.png", tmp_path / "out", tile=32)


def test_a_torn_record_loses_one_line_alone(tmp_path, monkeypatch):
    root = days(tmp_path / "in", "a.png", "b.png")
    stand_in(monkeypatch)
    command = (tmp_path / "run", root, tmp_path / "out")
    predict.predict(*command, progress=False)
    path = tmp_path / "out" / record.NAME
    path.write_bytes(path.read_bytes()[:-30])
    assert predict.predict(*command, progress=False) == [tmp_path / "out" / "b_labels.tif"]
    assert predict.predict(*command, progress=False) == []


def test_one_model_at_a_time_writes_into_a_folder(tmp_path, monkeypatch):
    root = days(tmp_path / "in", "a.png", "b.png")
    stand_in(monkeypatch)
    inner = []

    def another(images):
        if not inner:
            inner.append("begun")
            with pytest.raises(InUse, match=r"out is in use by .* pid \d+ since"):
                predict.predict(tmp_path / "run", root / "b.png", tmp_path / "out", tile=32)
            inner.extend(predict.predict(tmp_path / "run", root / "b.png", tmp_path / "out"))
        return bright(images)

    stand_in(monkeypatch, another)
    assert predict.predict(tmp_path / "run", root / "a.png", tmp_path / "out")
    assert inner == ["begun", tmp_path / "out" / "b_labels.tif"]
    assert predict.predict(tmp_path / "run", root, tmp_path / "out") == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("a_labels.tif", "b_labels.tif", record.NAME)
    }
