"""Runs on the folder of a user: any number of stains, and data that change afterwards."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg import main
from feedseg.datasets.tools.check import check
from feedseg.datasets.tools.convert import convert
from feedseg.evaluation.folders import evaluate_folders
from feedseg.inference import predict
from feedseg.runtime.logs import Log
from feedseg.training import train
from tests.support import tiny

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [2, 5])
def test_a_run_ends_with_a_result_and_a_picture(tmp_path, channels, capsys):
    data = tmp_path / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
    for index in range(6):
        label = np.zeros((32, 32), np.uint8)
        label[8:20, 4 + index : 20 + index] = 1
        stains = RNG.integers(0, 50, (channels, 32, 32)).astype(np.uint16)
        stains[0] += 100 * label
        stains[1:] *= 100
        options = dict(imagej=True, metadata={"axes": "CYX"})
        tifffile.imwrite(data / "images" / f"{index}.tif", stains, **options)
        tifffile.imwrite(data / "labels" / f"{index}.tif", label)
    assert check(data, output=tmp_path / "report", progress=False) == 0
    with Image.open(tmp_path / "report" / "overlay.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert (np.ptp(pixels, -1) > 100).any()  # stains in colors

    overrides = dict(data__name="folder", data_dir=str(data), split__scheme="auto")
    overrides |= dict(data__normalization="image_percentile", split__group_by_source=True)
    config = tiny.get_config(**overrides, train__epochs=1)
    run = tmp_path / "run"
    result = train.run(config, run, Log())
    assert result["complete"] and (run / "panel.png").exists()
    assert "panel.png: not" not in capsys.readouterr().out + (run / "log.txt").read_text()
    facts = json.loads((run / "data.json").read_text())
    assert facts["channels"] == channels and facts["normalization"] == "channel_percentile"
    image = data / "images" / "0.tif"
    written = predict.predict(run, image, tmp_path / "out", overlay=True, progress=False)
    assert {path.suffix for path in written} == {".tif", ".png"}


def test_every_folder_has_runs_of_its_own(tmp_path, monkeypatch):
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    own = dict(data__name="folder", run_name="folder-aep-seed0")
    found = [
        main.run_name(tiny.get_config(**own, data_dir=str(tmp_path / n)))
        for n in ("mine", "theirs")
    ]
    assert found == ["mine-aep-seed0", "theirs-aep-seed0"]
    monkeypatch.chdir(tmp_path / "mine")
    assert main.run_name(tiny.get_config(**{**own, "run_name": ""}, data_dir=".")) == "mine"
    assert main.run_name(tiny.get_config(run_name="folder-x")) == "folder-x"  # of synthetic data


def strokes(label: np.ndarray) -> list[dict]:
    """Lines of 1 px that somebody drew: one through the square, one beside it."""
    row, column = np.argwhere(label)[0].tolist()
    lines = {
        "cell": [[column + 1, row + 4], [column + 9, row + 4]],
        "background": [[0, 30], [31, 30]],
    }
    return [
        {"label": name, "shape_type": "linestrip", "points": (np.array(line) + 0.5).tolist()}
        for name, line in lines.items()
    ]


def test_scribbles_are_checked_trained_on_and_scored(tmp_path, capsys):
    """Of 1,024 pixels 41 are labeled: only they make the loss, the weights and the scores."""
    drawn, data, truth = tmp_path / "drawn", tmp_path / "data", tmp_path / "truth"
    drawn.mkdir()
    truth.mkdir()
    for index in range(6):
        label = np.zeros((32, 32), np.uint8)
        label[8:20, 4 + index : 20 + index] = 1
        noise = RNG.integers(0, 50, (32, 32)).astype(np.uint8)
        tifffile.imwrite(drawn / f"{index}.tif", noise + 100 * label)
        tifffile.imwrite(truth / f"{index}.tif", label)
        content = {"shapes": strokes(label), "imagePath": f"{index}.tif"}
        (drawn / f"{index}.json").write_text(json.dumps(content))
    convert(drawn, data, unlabeled="void", progress=False)
    assert check(data, output=tmp_path / "report", progress=False) == 0
    text = capsys.readouterr().out
    assert "Labeled 4 % of the pixels; the others (255, void) count nowhere" in text
    assert "as if it were an object" not in text

    overrides = dict(data__name="folder", data_dir=str(data), split__scheme="auto")
    config = tiny.get_config(**overrides, train__epochs=1)
    result = train.run(config, tmp_path / "run", Log())
    assert result["complete"] and np.sum(result["confusion"]) == 41
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["class_names"] == ["background", "cell"]
    assert facts["class_fractions"] == [round(32 / 41, 6), round(9 / 41, 6)]
    assert facts["training_images"]["objects"] == {}

    options = dict(output=None, class_names=("background", "cell"))
    found = evaluate_folders(truth, data / "labels", **options)
    assert found["dataset"]["miou"] == 1 and np.sum(found["confusion"]) == 6 * 41


def test_a_finished_run_says_that_its_data_have_changed(tmp_path, capsys):
    """The same command shows the old result, and that it is old."""
    data = tmp_path / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)

    def add(index: int) -> None:
        image = RNG.integers(0, 256, (32, 32)).astype(np.uint8)
        tifffile.imwrite(data / "images" / f"{index}.tif", image)
        tifffile.imwrite(data / "labels" / f"{index}.tif", image // 128)

    for index in range(6):
        add(index)
    overrides = dict(data__name="folder", data_dir=str(data), split__scheme="auto")
    config = tiny.get_config(**overrides, train__epochs=1)
    result = train.run(config, tmp_path / "run", Log())
    capsys.readouterr()
    assert train.run(config, tmp_path / "run", Log()) == result
    assert "have changed" not in capsys.readouterr().out
    add(6)
    assert train.run(config, tmp_path / "run", Log()) == result
    assert "changed since (6 items then, 7 now)" in capsys.readouterr().out
    (data / "labels" / "6.tif").unlink()
    train.run(config, tmp_path / "run", Log())
    assert "its data cannot be read now" in capsys.readouterr().out
