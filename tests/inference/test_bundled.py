"""Cards of models: everything is said, and the picture shows what the model does."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import baseline
from feedseg import cli
from feedseg.cli.export import CARD as CARD_KEYS
from feedseg.export import model_card
from feedseg.inference import bundled, example, loading, model_file
from feedseg.runtime.errors import UserError
from tests.inference.test_model_file import make_run

CARD = {key: f"the {key}, said in a line" for key in CARD_KEYS}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    run = make_run(folder / "run", baseline.get_config("model=unet"))
    return loading.export(run, folder / "tiny.feedseg.zip", CARD)


def test_a_picture_comes_from_the_file_alone(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundled, "FOLDER", file.parent)
    to = tmp_path / "new" / "card.png"
    assert cli.run(["models", "tiny", "--picture", str(to)]) == 0
    assert str(to) in capsys.readouterr().out
    seen = np.asarray(Image.open(to).convert("RGB")).reshape(-1, 3)
    labels = model_file.read(file).test_output[0].argmax(-1)
    assert 0.02 < labels.mean() < 0.98  # both classes are there
    share = (seen == (255, 0, 0)).all(-1).sum() / (seen == (0, 0, 0)).all(-1).sum()
    assert share == pytest.approx(labels.mean() / (1 - labels.mean()), rel=0.2)
    assert [path.name for path in to.parent.iterdir()] == ["card.png"]


def test_the_caption_says_all_of_the_card(file):
    described = model_file.read_manifest(file)
    said = model_card.caption(described)
    for text in CARD.values():
        assert text in said
    assert "mean IoU 50.0 on its own test part" in said
    bare = model_card.caption({**described, "card": {}, "scores": {}})
    assert bare == "Network unet, data synthetic."


def test_pictures_that_cannot_be_drawn(file, tmp_path):
    with pytest.raises(UserError, match=r"card\.jpg: a picture ends in \.png"):
        model_card.picture(file, tmp_path / "card.jpg")
    with pytest.raises(UserError, match="name a model before it"):
        cli.run(["models", "--picture", str(tmp_path / "card.png")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(bundled.models()))
def test_every_model_has_a_whole_card_and_a_picture(name, tmp_path):
    path = bundled.models()[name]
    assert path.stat().st_size <= 2e6
    content = model_file.read(path)
    about, facts = content.manifest["card"], content.manifest["facts"]
    assert set(about) == set(CARD_KEYS) and all(len(text) > 5 for text in about.values())
    assert content.manifest["data"] and facts["normalization"] and min(facts["size_px"]) > 0
    scores = content.manifest["scores"]["final"]
    assert {f"iou/{each}" for each in facts["class_names"]} <= set(scores)
    assert loading.verify(path) <= loading.TOLERANCE
    said = bundled.card(content.manifest)
    assert all(text in said for text in about.values())
    shown = np.bincount(content.test_output[0].argmax(-1).ravel()) > 20
    assert shown.sum() >= 2  # a model that says one thing only proves and shows nothing
    picture = Image.open(model_card.picture(path, tmp_path / "card.png"))
    assert picture.width > 900 and picture.height > 400


# A real image as the proof ------------------------------------------------------------------------


def test_the_middle_of_an_image_as_the_model_takes_it(file, tmp_path):
    model, path = loading.load(file), tmp_path / "a.tif"
    page = RNG.integers(0, 2**16, (150, 45), dtype=np.uint16)
    tifffile.imwrite(path, page)
    seen = example.crop(model, path)
    assert seen.shape == (1, 128, 44, 1) and model.stride == 2
    np.testing.assert_allclose(seen[0, ..., 0], page[11:139, :44] / 65535, atol=1e-6)
    stretched = model._replace(normalization="image_percentile", percentiles=(0.0, 100.0))
    low, high = page.min(), page.max()
    found = example.crop(stretched, path)[0, ..., 0]
    np.testing.assert_allclose(found, (page[11:139, :44] - low) / (high - low), atol=1e-6)
    for bad, message in (((1, 40), "too small"), ((20, 20, 3), "3 channel")):
        tifffile.imwrite(path, RNG.integers(0, 255, bad, dtype=np.uint8))
        with pytest.raises(UserError, match=rf"a\.tif: {message}"):
            example.crop(model, path)
    tifffile.imwrite(path, page)
    with pytest.raises(UserError, match="too small, at least 64 px"):
        example.crop(model._replace(window=64), path)


def test_a_model_is_proved_by_a_real_image(file, tmp_path):
    image, to = tmp_path / "a.png", tmp_path / "real.feedseg.zip"
    Image.fromarray(RNG.integers(0, 256, (70, 80), dtype=np.uint8)).save(image)
    run = file.parent / "run"
    assert cli.run(["export", str(run), "--to", str(to), "--example", str(image)]) == 0
    content = model_file.read(to)
    assert content.test_input.shape == (1, 70, 80, 1)
    assert (content.test_output == example.rounded(content.test_output)).all()
    assert 0 < loading.verify(to) <= example.STEP


def test_rounding_stays_far_below_the_tolerance():
    values = RNG.random((4, 5)).astype(np.float32)
    kept = example.rounded(values)
    assert kept.dtype == np.float32 and np.abs(kept - values).max() < loading.TOLERANCE / 4
    assert (example.rounded(kept) == kept).all()
