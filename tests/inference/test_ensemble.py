"""Ensembles: what several models give as one, weights learned for them, the file they become."""

import json
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

import feedseg
from feedseg import cli, datasets, models
from feedseg.datasets.common.facts import describe
from feedseg.export import ensemble as ensemble_file
from feedseg.export import ensemble_data, ensemble_weights
from feedseg.inference import bundled, ensemble, loading, model_file
from feedseg.inference.predictor import TrainingImages
from feedseg.inference.trained import JaxPredictor
from feedseg.models.layers.awel import Awel
from feedseg.runs import config as configs
from feedseg.runs import directory
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runtime import files, notes
from feedseg.runtime.errors import UserError
from tests.support import tiny

RNG = np.random.default_rng(0)
P = np.array([[[0.8, 0.2]], [[0.4, 0.6]]], np.float32)  # two answers for one pixel

# One answer from several --------------------------------------------------------------------------


def test_rules_by_hand():
    mean = ensemble.combined(P, "average", ensemble.equal_weights(2))
    np.testing.assert_allclose(mean, [[0.6, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(ensemble.combined(P, "average", np.array([1.0, 0])), P[0])
    joined = ensemble.combined(P, "awel", jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(joined, [[0.32 / 0.44, 0.12 / 0.44]], rtol=1e-5)
    with pytest.raises(ValueError, match="choose one of average, awel"):
        ensemble.combined(P, "median", np.ones(2))


def test_awel_of_probabilities_is_the_layer_fed_with_logits():
    logits = RNG.normal(size=(3, 1, 4, 4, 5)).astype(np.float32)
    weights = jnp.array([0.7, -0.2, 1.1])
    variables = {"params": {"weights": weights, "bias": jnp.array([3.0])}}
    layer = Awel("learned", "logits", "torch").apply(variables, logits)
    ours = ensemble.combined(jax.nn.softmax(logits), "awel", weights)
    np.testing.assert_allclose(ours, jax.nn.softmax(layer), atol=1e-5)


def model(offset=0.0, **changes) -> JaxPredictor:
    """A network of two classes that looks at one pixel."""

    def apply(image):
        return jax.nn.softmax(jnp.concatenate([image + offset, -image], -1))

    facts = dict(
        apply=apply, answers=None, outputs=None, stride=4, halo=6, window=0, channels=1,
        class_names=("a", "b"), class_colors=((0, 0, 0), (255, 0, 0)),
        normalization="dtype_range", percentiles=(1.0, 99.0),
    )  # fmt: skip
    return JaxPredictor(**facts | changes)


def test_all_see_as_far_as_the_widest():
    one = ensemble.together([model(), model(stride=6, halo=10), model(window=24)], "xyz")
    assert (one.stride, one.halo, one.window) == (12, 12, 24)
    image = RNG.random((1, 12, 12, 1)).astype(np.float32)
    expected = np.mean([model(x).apply(image) for x in (0, 1, 2)], axis=0)
    several = ensemble.together([model(0.0), model(1.0), model(2.0)], "xyz")
    np.testing.assert_allclose(several.apply(image), expected, atol=1e-6)
    assert several.answers(image).shape == (3, 1, 12, 12, 2)
    logits, out = several.outputs(image)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)
    assert out["members"].shape == (3, 1, 12, 12, 2) and several.inside is None


def test_unpadded_convolutions_keep_their_margin():
    bare = model(1.0, margin=8, inside=lambda image: jnp.full((*image.shape[:3], 2), 0.5))
    one = loading.for_images(ensemble.together([model(halo=10), bare], "xy"))
    assert one.margin == one.halo == 12  # as far as the first one looks
    image = RNG.random((1, 32, 32, 1)).astype(np.float32)
    expected = (model().apply(image) + 0.5) / 2
    np.testing.assert_allclose(one.apply(image), expected, atol=1e-6)


@pytest.mark.parametrize("other, common", [(0.5, 0.5), (0.25, None), (None, None)])
def test_members_have_one_pixel_size_or_none(other, common):
    members = [model(training_images=TrainingImages(pixel_um=each)) for each in (0.5, other)]
    with notes.collected() as texts:
        one = ensemble.together(members, "xy")
    assert one.training_images.pixel_um == common
    assert ["trained at different pixel sizes" in text for text in texts] == [True] * (not common)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(class_names=("b", "a")), "one and two differ in classes: a, b and b, a;"),
        (dict(channels=3), "one and two differ in channels: 1 and 3;"),
        (dict(window=64), "one and two cannot be one: .* 32 px and 64 px"),
        (dict(stride=24), "one sees 32 px at once, others need a multiple of 24"),
    ],
)
def test_models_that_do_not_fit_are_named(other, message):
    with pytest.raises(UserError, match=message):
        ensemble.together([model(window=32), model(**other)], ["one", "two"])


def test_percentiles_count_only_where_they_are_used():
    assert ensemble.together([model(), model(percentiles=(0.0, 100.0))], "xy").contracts == ()
    by = [model(normalization="image_percentile", percentiles=(p, 99.0)) for p in (0.0, 1.0)]
    several = ensemble.together([*by, model(), by[0]], "wxyz")
    assert len(several.contracts) == 3 and several.normalization == "dtype_range"
    image = RNG.random((1, 8, 8, 3)).astype(np.float32)
    seen = [model().apply(image[..., i : i + 1]) for i in (0, 1, 2, 0)]
    np.testing.assert_allclose(several.answers(image), seen, atol=1e-6)


# Learned weights ----------------------------------------------------------------------------------


def answers(noise: float, truth: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities of two classes, right but for noise in the logits."""
    logits = np.random.default_rng(seed).normal(0, noise, (*truth.shape, 2))
    logits[..., 1] += 4.0 * (truth == 1) - 2
    return np.asarray(jax.nn.softmax(logits), np.float32)


TRUTH = np.random.default_rng(9).integers(0, 2, (4, 24, 24)).astype(np.uint8)


def test_weights_prefer_the_better_member_and_pay():
    several = np.stack([answers(0.5, TRUTH, 1), answers(20.0, TRUTH, 2)])
    learned = ensemble_weights.learn(several, TRUTH, np.array([0, 0, 1, 1]))
    assert learned.weights[0] > 5 * abs(learned.weights[1])
    assert learned.pays and len(learned.held_out) == 2
    again = ensemble_weights.learn(several, TRUTH, np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(learned.weights, again.weights)


def test_weights_of_equal_members_do_not_pay():
    several = np.stack([answers(3.0, TRUTH, 1)] * 2)
    learned = ensemble_weights.learn(several, TRUTH, np.arange(4))
    assert learned.weights[0] == pytest.approx(learned.weights[1]) and not learned.pays
    alone = ensemble_weights.learn(several[:, :1], TRUTH[:1], np.arange(1))
    assert alone.held_out == () and not alone.pays


def test_pixels_without_truth_are_not_learned_from():
    several = np.stack([answers(1.0, TRUTH, 1), answers(3.0, TRUTH, 2)])
    unknown = TRUTH.copy()
    unknown[:, :, :12] = 255
    changed = several.copy()
    changed[:, :, :, :12] = 0.5
    first, second = (ensemble_weights.fit(each, unknown) for each in (several, changed))
    np.testing.assert_array_equal(first, second)
    none = ensemble_weights.fit(several, np.full_like(TRUTH, 255))
    np.testing.assert_array_equal(none, [0.5, 0.5])


def test_crops_of_an_image_stay_in_one_half():
    for sources in ([3, 3, 3, 5], [0, 1, 2, 2], [7, 7, 7, 7]):
        first = ensemble_weights._first_half(np.array(sources))
        assert 0 < first.sum() < 4
        if len(set(sources)) > 1:
            assert not set(np.array(sources)[first]) & set(np.array(sources)[~first])


# Runs ---------------------------------------------------------------------------------------------


def make_run(folder, seed, **changes):
    """A run directory of a network that is not trained, on the synthetic images."""
    config = tiny.get_config(**changes)
    dataset = datasets.load(config)
    network = models.build(dataset.num_classes, config.model)
    image = np.zeros((1, *dataset.images.shape[1:]), np.float32)
    variables = network.init(jax.random.key(seed), image, train=False)
    folder.mkdir(parents=True)
    files.write_json_atomic(folder / "config.json", configs.to_plain(config))
    files.write_json_atomic(folder / "data.json", describe(dataset, config.data))
    with Checkpoints(folder / "best", keep=1) as best:
        best.save(1, dict(variables), {"epoch": 1}, final=True)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root / name, seed) for seed, name in enumerate("ab")]


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    to = tmp_path_factory.mktemp("ensemble") / "both.feedseg.zip"
    said = ensemble_file.make([runs[0].parent], to, {"licence": "CC0-1.0"}, learn=True)
    assert "test, 3 images" in said and "gain in mean IoU on the test images" in said
    return to


def test_a_file_gives_the_mean_of_its_members(runs, file, tmp_path):
    facts = model_file.read_manifest(file)["ensemble"]
    one, several = loading.load(file), loading.load(runs)
    image = RNG.random((1, 20, 24, 1)).astype(np.float32)
    a, b = (loading.load(run).apply(image) for run in runs)
    np.testing.assert_allclose(several.apply(image), (a + b) / 2, atol=1e-6)
    expected = (a + b) / 2
    if facts["used"] == ensemble_file.LEARNED:
        weights = np.array(list(facts["weights"].values()))
        expected = ensemble.combined(np.stack([a, b]), "awel", weights)
    np.testing.assert_allclose(one.apply(image), expected, atol=1e-6)
    again = tmp_path / "again.feedseg.zip"
    ensemble_file.make(runs, again, {"licence": "CC0-1.0"}, learn=True)
    assert again.read_bytes() == file.read_bytes()


def test_the_table_is_right_and_of_the_common_images(runs, file):
    facts = model_file.read_manifest(file)["ensemble"]
    names = ["a", "b", "mean of the members", "averaged", "learned weights"]
    assert list(facts["test"]["scores"]) == names and facts["validation"]["images"] == 1
    test = facts["test"]["scores"]
    assert test["mean of the members"]["miou"] == pytest.approx(
        (test["a"]["miou"] + test["b"]["miou"]) / 2
    )
    best = max("ab", key=lambda name: facts["validation"]["scores"][name]["miou"])
    assert facts["gain"][best] == pytest.approx(test[facts["used"]]["miou"] - test[best]["miou"])
    alone = loading.load(runs[0])
    val, part = ensemble_data.common_parts(runs)
    hits = [
        np.asarray(alone.apply(part.sets[0].images[i][None] / np.float32(255)).argmax(-1))[0]
        == part.sets[0].labels[i]
        for i in part.items
    ]
    assert test["a"]["accuracy"] == pytest.approx(np.mean(hits))
    assert not set(val.items) & set(part.items)


def test_weights_that_do_not_pay_are_not_used(runs, tmp_path, monkeypatch):
    for held_out, used in ((((0.9, 0.5), (0.9, 0.5)), "learned weights"), (((0.9, 0.5),), "")):
        losing = held_out if used else (*held_out, (0.5, 0.9))
        found = ensemble_weights.Learned(np.array([0.9, 0.3], np.float32), losing)
        monkeypatch.setattr(ensemble_weights, "learn", lambda *_, found=found: found)
        to = tmp_path / f"{used[:4]}.feedseg.zip"
        said = ensemble_file.make(runs, to, {}, learn=True)
        described = model_file.read_manifest(to)
        assert described["network"]["rule"] == ("awel" if used else "average")
        assert described["ensemble"]["used"] == (used or "averaged")
        assert ("they are used" if used else "so the members are averaged") in said


def test_command_and_predict(runs, tmp_path, capsys):
    to, page = tmp_path / "e.feedseg.zip", RNG.integers(0, 256, (40, 44), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", page)
    assert cli.run(["ensemble", *map(str, runs), "--to", str(to), "--description", "of two"]) == 0
    assert "averaged: " in capsys.readouterr().out
    assert cli.run(["models", str(to)]) == 0
    said = capsys.readouterr().out
    assert "members        average of a, b" in said and "within the tolerance" in said
    inputs = ("--input", str(tmp_path / "x.tif"), "--output")
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli.run(["predict", "--model", str(to), *inputs, str(one), "--uncertainty"]) == 0
    both = ("--model", str(runs[0]), "--model", str(runs[1]))
    assert cli.run(["predict", *both, *inputs, str(two)]) == 0
    labels = tifffile.imread(one / "x_labels.tif")
    np.testing.assert_array_equal(labels, tifffile.imread(two / "x_labels.tif"))
    assert tifffile.imread(one / "x_uncertainty.tif").max() > 0
    capsys.readouterr()
    assert cli.run(["predict", *both, *inputs, str(two)]) == 0
    assert "exist already" in capsys.readouterr().out


def test_arrays_with_uncertainty_and_orientations(runs, file):
    page = RNG.integers(0, 256, (36, 40), dtype=np.uint8)
    plain = feedseg.load(runs).predict(page, uncertainty=True, tile=32)
    members = [feedseg.load(run).predict(page).probabilities for run in runs]
    np.testing.assert_allclose(plain.probabilities, np.mean(members, 0), atol=1e-6)
    assert 0 < plain.uncertainty.max() <= 1 + 1e-6  # bits, of two members
    turned = feedseg.load(file).predict(page, dihedral=True, uncertainty=True)
    assert turned.probabilities.shape == (36, 40, 3) and turned.uncertainty.shape == (36, 40)


def test_fingerprint_of_several(runs, file):
    prints = [bundled.fingerprint(run) for run in runs]
    assert bundled.fingerprint([runs[0]]) == prints[0]
    both = [
        bundled.fingerprint(runs),
        bundled.fingerprint(runs[::-1]),
        bundled.fingerprint(file),
        *prints,
    ]
    assert len(set(both)) == 5


# What cannot be -----------------------------------------------------------------------------------


def test_without_data_it_averages_but_does_not_learn(runs, tmp_path):
    packed = loading.export(runs[0], tmp_path / "a.feedseg.zip", {})
    to = tmp_path / "e.feedseg.zip"
    with pytest.raises(UserError, match=r"a\.feedseg\.zip: a model file does not hold its data"):
        ensemble_file.make([packed, runs[1]], to, {}, learn=True)
    assert not to.exists()
    said = ensemble_file.make([packed, runs[1]], to, {})
    assert said.startswith("no scores: ") and "model file does not hold its data" in said
    assert model_file.read_manifest(to)["scores"] == {} and loading.verify(to) < 1e-6
    with pytest.raises(UserError, match=r"e\.feedseg\.zip: is an ensemble; name the models"):
        ensemble_file.make([to, runs[1]], tmp_path / "f.feedseg.zip", {})
    with pytest.raises(UserError, match=r"e\.feedseg\.zip: exists; add --overwrite"):
        ensemble_file.make([packed, runs[1]], to, {})


def test_runs_of_other_images_or_folds_are_named(runs, tmp_path):
    other = make_run(tmp_path / "other", 3, data__synthetic_seed=1)
    with pytest.raises(UserError, match=r"a and .*other were not trained with the same data: imag"):
        ensemble_data.common_parts([runs[0], other])
    fold = make_run(tmp_path / "fold", 3, split__fold=1)
    with pytest.raises(UserError, match=r"a and .*fold: no image is in the validation parts"):
        ensemble_data.common_parts([runs[0], fold])
    limits = make_run(tmp_path / "limits", 3, data__normalization="image_percentile")
    val, test = ensemble_data.common_parts([runs[0], limits])  # scored, each by its own limits
    assert len(val.items) == 1 and len(test.items) == 3
    mixed = tmp_path / "e.feedseg.zip"
    assert "test, 3 images" in ensemble_file.make([runs[0], limits], mixed, {})
    pages = RNG.integers(40, 90, (2, 36, 40), dtype=np.uint8)  # as `limits` sees it: 0 to 1
    members = [feedseg.load(run).predict(pages).probabilities for run in (runs[0], limits)]
    found = feedseg.load(mixed).predict(pages, tile=32).probabilities
    np.testing.assert_allclose(found, np.mean(members, 0), atol=1e-6)
    facts = directory.read_json(other / "data.json") | {"fingerprint": "another"}
    files.write_json_atomic(other / "data.json", facts)
    with pytest.raises(UserError, match="other: the data here are not those of the run"):
        ensemble_data.common_parts([other, runs[0]])


def test_members_are_found_and_counted(runs, tmp_path):
    assert ensemble_file.find_members([runs[0].parent]) == runs
    with pytest.raises(UserError, match="is named twice"):
        ensemble_file.find_members([*runs, runs[0].parent])
    with pytest.raises(UserError, match="at least two"):
        ensemble_file.find_members(runs[:1])
    assert ensemble_file.short_names([tmp_path / "x" / "r", tmp_path / "r", tmp_path / "s"]) == [
        str(tmp_path / "x" / "r"),
        str(tmp_path / "r"),
        "s",
    ]


def rewritten(file, target, **replaced):
    """A copy whose digests fit, with other files in it."""
    with zipfile.ZipFile(file) as old:
        content = {name: old.read(name) for name in old.namelist()} | replaced
    described = json.loads(content["model.json"])
    described["sha256"] |= {
        name: model_file.hashlib.sha256(data).hexdigest() for name, data in replaced.items()
    }
    content["model.json"] = json.dumps(described).encode()
    with zipfile.ZipFile(target, "w") as new:
        for name, data in content.items():
            new.writestr(name, data)
    return target


def test_damaged_members_are_named(file, tmp_path):
    bad = tmp_path / "bad.feedseg.zip"
    whole = file.read_bytes()
    for at in range(400, len(whole) - 900, len(whole) // 9):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"bad\.feedseg\.zip"):
            model_file.read(bad)
    member = "members/0.feedseg.zip"
    with pytest.raises(UserError, match=r"0\.feedseg\.zip: is no whole feedseg model"):
        model_file.read(rewritten(file, bad, **{member: b"PK"}))
    with pytest.raises(UserError, match=r"0\.feedseg\.zip: an ensemble in an ensemble"):
        model_file.read(rewritten(file, bad, **{member: whole}))
    weights = model_file.checkpoint_format.to_host({"params": {"weights": np.ones(3, np.float32)}})
    from safetensors.numpy import save

    with pytest.raises(UserError, match="weights of another network: params/weights has shape"):
        loading.load(rewritten(file, bad, **{"weights.safetensors": save(weights)}))
    shutil.copy(file, bad)
    assert loading.verify(bad) < 1e-6
