"""Figures of trained networks: what they show, and a whole run drawn."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg import cli, main
from feedseg.evaluation import figures
from feedseg.experiments import feedback_figures
from feedseg.inference.trained import check_rounds
from feedseg.runtime.errors import UserError
from tests.support.fake_model import Fake
from tests.support.tiny import ROOT


def test_changes():
    """Grey stays, corrected green, spoiled red, from wrong to wrong yellow."""
    before, after = np.array([[0, 1, 0, 1]]), np.array([[0, 0, 1, 2]])
    truth = np.array([[1, 0, 0, 0]])
    image = np.zeros((1, 4, 1), np.float32)
    found = feedback_figures.changes(image, before, after, truth)[0]
    gray = (128, 128, 128)
    expected = [
        gray,
        feedback_figures.CORRECTED,
        feedback_figures.SPOILED,
        feedback_figures.OTHERWISE,
    ]
    np.testing.assert_array_equal(found, expected)
    unknown = feedback_figures.changes(image, before, after, None)[0]
    np.testing.assert_array_equal(unknown, [gray, *[feedback_figures.OTHERWISE] * 3])


def test_innermost():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 3:10] = True
    assert feedback_figures.innermost(mask) in [(4, x) for x in (5, 6, 7)]
    assert feedback_figures.innermost(np.ones((5, 5), bool)) == (2, 2)  # outside is no region
    assert feedback_figures.innermost(np.zeros((5, 5), bool)) is None


def test_marks_leave_the_pixel_and_stay_inside():
    image = np.full((48, 60, 1), 0.5, np.float32)
    found = feedback_figures.marked(image, [(0, 0), (20, 30)])
    np.testing.assert_array_equal(found[20, 30], [128] * 3)
    np.testing.assert_array_equal(found[20, 33], [255, 220, 0])
    assert (found[40:] == 128).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small network with rounds, ConvLSTMs and attention, trained for an epoch."""
    folder = tmp_path_factory.mktemp("feedback") / "run"
    config = f"--config={ROOT / 'tests' / 'support' / 'tiny_feedback.py'}"
    arguments = [config, f"--workdir={folder}", "--config.train.epochs=1"]
    assert main.guarded(main.train, arguments) == 0
    return folder


def test_everything_of_a_run_is_drawn(run, tmp_path, capsys):
    assert cli.run(["figures", str(run), "--count", "2", "--output", str(tmp_path)]) == 0
    names = ["rounds.png", "features.png", "attention.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    for name in names:
        assert np.asarray(Image.open(tmp_path / name)).std() > 10


def test_an_image_of_ones_own(run, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 50), np.uint8)
    tifffile.imwrite(tmp_path / "cells.tif", image)
    pixels = ["--pixel", "3,4", "--pixel", "9,9"]
    arguments = ["figures", str(run), "--input", str(tmp_path / "cells.tif"), *pixels]
    assert cli.run(arguments) == 0
    assert (run / "figures" / "attention.png").exists()
    with pytest.raises(UserError, match="--count 0: at least 1"):
        feedback_figures.figures(run, count=0)
    with pytest.raises(UserError, match="pixel 99,4 is outside the image of 32 x 32 px"):
        feedback_figures.figures(run, image=tmp_path / "cells.tif", pixels=[(99, 4)])


def test_prediction_with_rounds_and_uncertainty(run, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 70), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    command = ["predict", "--model", str(run), "--input", str(tmp_path / "a.tif"), "--output"]
    for rounds in ("1", "2", "3"):
        folder = tmp_path / f"rounds{rounds}"
        assert cli.run([*command, str(folder), "--rounds", rounds, "--probabilities"]) == 0
    first, second, third = (
        tifffile.imread(tmp_path / f"rounds{n}" / "a_probabilities.tif") for n in (1, 2, 3)
    )
    assert np.abs(first - second).max() > 1e-4 < np.abs(second - third).max()
    assert cli.run([*command, str(tmp_path / "spread"), "--uncertainty"]) == 0
    spread = tifffile.imread(tmp_path / "spread" / "a_uncertainty.tif")
    assert spread.shape == (40, 70)
    assert 0 < spread.max() < 1


def test_rounds_that_a_network_cannot_make(run, tmp_path):
    separate = dict(name="feedback_unet", rounds=2, bn_rounds="separate")
    check_rounds(run, separate, 1)
    with pytest.raises(UserError, match=r"3 rounds need a model trained with --config\.model\.bn"):
        check_rounds(run, separate, 3)
    with pytest.raises(UserError, match="network unet has no rounds"):
        check_rounds(run, dict(name="unet"), 2)
    with pytest.raises(UserError, match="at least 1"):
        check_rounds(run, separate, -1)


def test_a_network_with_nothing_to_show(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback_figures, "load_run", lambda *_: Fake(apply=None))
    images = np.zeros((1, 8, 8, 1), np.float32)
    monkeypatch.setattr(feedback_figures, "_of_run", lambda *_: (images, images[..., 0]))
    monkeypatch.setattr(Fake, "outputs", lambda self, image: (image, {}), raising=False)
    with pytest.raises(UserError, match="no rounds, filters, members, attention or edges"):
        feedback_figures.figures(tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("gates.png", ("attention",)), ("edges.png", ("edge", "canny"))],
)
def test_gates_and_edges(name, shown, tmp_path, monkeypatch):
    image = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
    out = {"attention": image[None, ..., 0], "edge": image, "canny": 255 * (image > 0.5)}
    logits = np.concatenate([image, 1 - image], -1), {key: out[key] for key in shown}
    monkeypatch.setattr(feedback_figures, "load_run", lambda *_: Fake(apply=None))
    monkeypatch.setattr(feedback_figures, "read_variables", lambda *_: {"params": {}})
    monkeypatch.setattr(feedback_figures, "_of_run", lambda *_: (image, np.uint8(image[..., 0])))
    monkeypatch.setattr(Fake, "outputs", lambda self, image: logits, raising=False)
    assert feedback_figures.figures(tmp_path) == [tmp_path / "figures" / name]
    assert np.asarray(Image.open(tmp_path / "figures" / name)).std() > 10


def test_weights_of_an_ensemble(tmp_path):
    path = figures.ensemble_weights(np.array([-0.5, 0.2, 1.4]), tmp_path / "weights.png")
    assert np.asarray(Image.open(path)).std() > 10
