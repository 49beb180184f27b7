"""Random crops of whole images, and the tiles of whole images in validation."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

import feedseg
from feedseg import datasets, models
from feedseg.datasets.common import splits
from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.common.facts import describe
from feedseg.evaluation import metrics
from feedseg.inference import segment, tiling
from feedseg.inference.trained import make_predictor
from feedseg.runtime import mesh, signals
from feedseg.runtime.errors import Stopped, UserError
from feedseg.runtime.logs import Log
from feedseg.training import augment, batched, crops, parts, setup, train
from feedseg.training import step as steps
from feedseg.training.run import RunSpec
from tests.support import tiny

RNG = np.random.default_rng(0)
SIZES = ((40, 50), (90, 33), (20, 64), (70, 70), (64, 128), (33, 33))
CROP = 32
STILL = tiny.get_config(augment__dihedral=False, augment__grey_offset=0.0).augment


@pytest.fixture
def config(tmp_path):
    """Six images of different sizes, with three classes, the third one rare, and void pixels."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for number, size in enumerate(SIZES):
        label = (RNG.random(size) < 0.4).astype(np.uint8)
        label[:3, :5] = 2
        label[-2:] = VOID
        image = RNG.integers(0, 256, (*size, 2), dtype=np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image, planarconfig="contig")
        tifffile.imwrite(tmp_path / "labels" / f"{number}.tif", label)
    return tiny.get_config(
        data__name="folder",
        data_dir=str(tmp_path),
        data__crops="random",
        data__crop_size=CROP,
        data__axes="YXC",
        split__scheme="auto",
        train__epochs=2,
        train__batch_size=4,
    )


@pytest.fixture
def dataset(config):
    return datasets.load(config)


def items(dataset, share=0.0, seed=0) -> crops.CropItems:
    index = np.arange(len(dataset.labels))
    made = crops.items(dataset, index, seed, np.ones(dataset.num_classes), share)
    return jax.tree.map(jnp.asarray, made)


def draw(own: crops.CropItems, step=0, size=64, options=STILL):
    batch = jax.jit(lambda s: own.batch(s, jax.random.key(3), size, options, lambda x: x))
    return jax.tree.map(np.asarray, batch(jnp.int32(step)))


def test_whole_images_keep_their_sizes(dataset):
    assert [label.shape for label in dataset.labels] == list(SIZES)
    assert dataset.crop == CROP and dataset.input_px == (CROP, CROP)
    grid = dataclasses.replace(dataset, crop=0)
    assert grid.fingerprint() == dataset.fingerprint()  # the crops are a matter of the config


def test_crops_are_cut_from_the_images(dataset):
    own = items(dataset)
    image, label, _ = draw(own)
    found, top, left = map(np.asarray, own.corners(jnp.int32(0), 64))
    assert set(found) == set(range(6)), "every image is drawn from"
    for n, item in enumerate(found):
        height, width = SIZES[item]
        y, x = (start + np.arange(CROP) for start in (top[n], left[n]))
        inside = np.ix_((y >= 0) & (y < height), (x >= 0) & (x < width))
        place = np.ix_(y[(y >= 0) & (y < height)], x[(x >= 0) & (x < width)])
        raw = dataset.images[item][place] / np.float32(255)
        np.testing.assert_allclose(image[n][inside], raw, atol=1e-6)
        np.testing.assert_array_equal(label[n][inside], dataset.labels[item][place])
        assert height < CROP or (y.min() >= 0 and y.max() < height), (
            "no padding where there is room"
        )
        outside = np.ones((CROP, CROP), bool)
        outside[inside] = False
        assert (label[n][outside] == VOID).all()


def test_a_step_draws_what_its_number_says(dataset):
    own = items(dataset)
    one, again, other = draw(own, 5), draw(own, 5), draw(own, 6)
    np.testing.assert_array_equal(one[0], again[0])
    assert (one[0] != other[0]).any()
    assert (draw(items(dataset, seed=1), 5)[0] != one[0]).any()
    np.testing.assert_array_equal(own.chosen(jnp.int32(5), 64), own.corners(jnp.int32(5), 64)[0])


def test_every_labeled_pixel_is_drawn_and_void_ones_lead_nowhere(dataset):
    places = np.asarray(items(dataset).places)
    flat = np.concatenate([label.ravel() for label in dataset.labels])
    assert (flat[places[0]] != VOID).all()
    for number in range(3):
        assert (flat[places[1 + number]] == number).all()
    share = np.mean(flat[places[0]] == 1) / np.mean(flat[flat != VOID] == 1)
    assert 0.9 < share < 1.1


def test_rare_classes_appear(dataset):
    rare = [np.mean((draw(items(dataset, share))[1] == 2).any((1, 2))) for share in (0.0, 0.9)]
    assert rare[1] > max(0.25, 1.5 * rare[0])


def test_what_is_moved_shows_what_lies_around(dataset):
    """A shift by whole pixels is another crop; the corners of a turned one are not made up."""
    own = items(dataset)
    moved = tiny.get_config(augment__dihedral=False, augment__grey_offset=0.0).augment
    moved.update(rotate_deg=45.0, scale=0.2)
    image, label, _ = draw(own, options=moved)
    assert np.isfinite(image).all() and (label != VOID).mean() > 0.7
    item, top, left = own.corners(jnp.int32(0), 64)
    field = augment.displacement(jax.random.split(jax.random.key(3), 3)[1], (64, CROP, CROP), moved)
    y = np.asarray(top)[:, None, None] + np.arange(CROP)[:, None] + np.asarray(field[:, 0])
    x = np.asarray(left)[:, None, None] + np.arange(CROP) + np.asarray(field[:, 1])
    beyond = (y < np.asarray(top)[:, None, None]) | (x < np.asarray(left)[:, None, None])
    for n in range(64):
        height, width = SIZES[int(item[n])]
        rows, columns = np.rint(y[n]).astype(int), np.rint(x[n]).astype(int)
        within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        truth = dataset.labels[int(item[n])][rows[within], columns[within]]
        assert np.mean(label[n][within] == truth) > 0.99  # halves may be rounded either way
        assert (label[n][~within] == VOID).all()
    assert beyond.any()


def test_nothing_random_is_refused_with_what_needs_a_grid(config):
    for key, value in (("dihedral_copies", True), ("crop_size", 0)):
        with config.unlocked():
            other = config.copy_and_resolve_references()
            other.data[key] = value
        with pytest.raises(UserError, match=rf"data\.{key}={value} has no meaning with data.crops"):
            datasets.load(other)


def test_an_epoch_covers_the_images_and_validation_takes_a_tenth():
    assert crops.steps_per_epoch(100_000, 0, 100, 5) == 2
    assert crops.steps_per_epoch(100_001, 0, 100, 5) == 3
    assert crops.steps_per_epoch(1, 300_000, 100, 5) == 20


def test_a_training_on_crops_goes_on_bit_for_bit_and_its_model_predicts(config, tmp_path):
    """Two epochs at once are one, stopped, and one more; scores come per image."""
    config.augment.update(rotate_deg=20.0, scale=0.1, dihedral=True)
    whole = train.run(config, tmp_path / "whole", Log())
    with pytest.MonkeyPatch.context() as patch:
        asked, requested = [], signals.Stop.requested

        def third(own) -> bool:
            asked.append(own)
            return len(asked) == 3 or requested(own)

        patch.setattr(signals.Stop, "requested", third)
        with pytest.raises(Stopped):
            train.run(config, tmp_path / "parts", Log())
    resumed = train.run(config, tmp_path / "parts", Log())
    for key in ("confusion", "image_scores", "metrics", "best"):
        assert resumed[key] == whole[key]
    assert len(whole["image_scores"]["miou"]) == whole["counts"]["test"]
    facts = json.loads((tmp_path / "whole" / "data.json").read_text())
    assert facts["size_px"] == [CROP, CROP] and (tmp_path / "whole" / "panel.png").exists()
    model = feedseg.load(tmp_path / "whole")
    assert model.predict(np.zeros((50, 70, 2), np.uint8)).labels.shape == (50, 70)


@pytest.mark.parametrize("form", ["copies", "vmap"])
def test_runs_of_one_program_draw_as_they_do_alone(config, tmp_path, form, monkeypatch):
    monkeypatch.setattr(batched, "devices", lambda: [mesh.mesh_of(jax.devices()[:1])])
    config.train.epochs = 1
    config.runtime.together = form
    specs = []
    for seed in range(2):
        own = config.copy_and_resolve_references()
        own.seed = seed
        specs.append(RunSpec(own, tmp_path / f"{form}{seed}", Log()))
    found = train.run_together(specs)
    for seed, one in enumerate(found):
        alone = train.run(specs[seed].config, tmp_path / f"alone{seed}", Log())
        assert one["together"] == 2 and one["counts"] == alone["counts"]
        losses = [
            json.loads((tmp_path / f"{name}{seed}" / "metrics.jsonl").read_text())["loss"]
            for name in (form, "alone")
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Tiles ------------------------------------------------------------------------------------------


def network(name="unet", **changes):
    from configs import common

    return models.build(3, {**common.model(name), "filters": (4, 8), **changes})


def test_tiles_keep_every_pixel_once(dataset, monkeypatch):
    monkeypatch.setattr(tiling, "automatic_tile", lambda halo, stride: 64)
    made = parts.part(dataset, np.arange(6), network())
    assert made.dataset.images.shape[1:] == (64, 64, 2) and len(set(made.images)) == 6
    for number, label in enumerate(dataset.labels):
        counts = np.bincount(label.ravel(), minlength=256)[:VOID]
        tiles = made.dataset.labels[made.images == number]
        np.testing.assert_array_equal(np.bincount(tiles.ravel(), minlength=256)[:VOID], counts)
    assert parts.pixels(dataset, np.arange(6), network()) == made.dataset.labels.size


def test_scores_of_tiles_are_those_of_whole_images(dataset, monkeypatch):
    """The largest image in tiles as `predict` makes them: the same confusion matrix."""
    monkeypatch.setattr(tiling, "automatic_tile", lambda halo, stride: 64)
    model, index = network(dropout=0.0), np.array([4, 3])
    keys = dict.fromkeys(("params", "dropout"), jax.random.key(1))
    variables = model.init(keys, jnp.zeros((1, 64, 64, 2)), train=False)
    facts = describe(dataset, tiny.get_config().data)
    predictor = make_predictor(model, variables, "float32", facts)
    made = parts.part(dataset, index, model)
    step = steps.make_eval_step(model, "float32", 3)
    held = steps.Items(*setup._fields(made.dataset, made.index))
    found = made.by_image(np.asarray(step(variables, held, made.index)["final"]))
    for number, item in enumerate(index):
        raw = dataset.images[item] / np.float32(255)
        layout = segment.tiles_for(predictor, *raw.shape[:2])
        labels = tiling.apply_tiled(raw, predictor.apply, layout).argmax(-1)
        whole = metrics.confusion_per_image(dataset.labels[item][None], labels[None], 3)[0]
        np.testing.assert_array_equal(found[number], whole)


def test_items_of_one_size_stay_as_they_are():
    grid = datasets.load(tiny.get_config())
    made = parts.part(grid, np.array([2, 5]), network())
    assert made.dataset is grid and made.by_image(np.ones((2, 3, 3))).shape == (2, 3, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_are_cut_into_parts(config, count, tmp_path):
    for kind in ("images", "labels"):
        for path in sorted(Path(config.data_dir, kind).iterdir())[count:]:
            path.unlink()
    dataset = datasets.load(config)
    split = splits.split(dataset, config.split)
    assert min(map(len, split)) >= 1 and len(dataset.labels) >= 3
    assert dataset.crop <= CROP
