"""Model files: what goes in comes out, what is damaged is named, nothing in them is run."""

import io
import json
import zipfile

import jax
import numpy as np
import pytest

import feedseg
from configs import baseline, feedback_unet
from feedseg import cli, models
from feedseg.cli.export import CARD as CARD_KEYS
from feedseg.inference import bundled, loading, model_file, predict
from feedseg.inference.trained import load_run
from feedseg.runs import config as configs
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runtime import files
from feedseg.runtime.errors import UserError

FACTS = dict(
    fingerprint="0",
    name="synthetic",
    class_names=["background", "membrane"],
    class_colors=[[0, 0, 0], [255, 0, 0]],
    channels=1,
    size_px=[32, 32],
    normalization="dtype_range",
    percentiles=[1.0, 99.8],
)
RNG = np.random.default_rng(0)


def make_run(folder, config):
    """A run directory with an untrained network."""
    config.model.filters = (2, 4)
    model = models.build(2, config.model)
    side = 2 * model.stride
    variables = model.init(jax.random.key(3), np.zeros((1, side, side, 1), np.float32), train=False)
    folder.mkdir()
    files.write_json_atomic(folder / "config.json", configs.to_plain(config))
    files.write_json_atomic(folder / "data.json", FACTS)
    files.write_json_atomic(folder / "result.json", {"metrics": {"final": {"miou": 0.5}}})
    with Checkpoints(folder / "best", keep=1) as best:
        best.save(7, dict(variables), {"epoch": 1}, final=True)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("package") / "run", baseline.get_config("model=unet"))


@pytest.fixture(scope="module")
def file(run):
    card = {"description": "of nothing", "licence": "CC0-1.0"}
    return loading.export(run, run.parent / "model.feedseg.zip", card)


def test_a_file_gives_what_the_run_gives(run, file, tmp_path):
    image = RNG.random((1, 20, 24, 1)).astype(np.float32)
    ours, theirs = load_run(run), loading.load(file)
    np.testing.assert_array_equal(ours.apply(image), theirs.apply(image))
    skipped = {"apply", "outputs", "answers", "inside"}
    for name in set(ours._fields) - skipped:
        assert getattr(ours, name) == getattr(theirs, name), name
    described = model_file.read_manifest(file)
    assert described["scores"]["final"]["miou"] == 0.5
    assert described["card"] == {"description": "of nothing", "licence": "CC0-1.0"}
    again = loading.export(run, tmp_path / "again.feedseg.zip", described["card"])
    assert again.read_bytes() == file.read_bytes()


def test_feedback_keeps_its_rounds(tmp_path):
    run = make_run(tmp_path / "run", feedback_unet.get_config("dataset=synthetic,layout=none"))
    file = loading.export(run, tmp_path / "m.feedseg.zip", {})
    assert loading.verify(file) < loading.TOLERANCE
    image = RNG.random((1, 16, 16, 1)).astype(np.float32)
    first, last = (loading.load(file, rounds=n).apply(image) for n in (1, 2))
    assert float(np.abs(first - last).max()) > 1e-3
    with pytest.raises(UserError, match="statistics of its own"):
        loading.load(file, rounds=3)


def test_a_file_that_does_not_prove_itself_gets_no_name(run, file, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "verify", lambda path: 0.5)
    kept = tmp_path / "kept.feedseg.zip"
    kept.write_bytes(b"good")
    with pytest.raises(UserError, match=r"kept\.feedseg\.zip: read again it gives other"):
        loading.export(run, kept, {}, overwrite=True)
    assert kept.read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 1


def test_export_refuses(run, file, tmp_path):
    with pytest.raises(UserError, match=r"model\.feedseg\.zip: exists; add --overwrite"):
        loading.export(run, file, {})
    with pytest.raises(UserError, match=r"ends in \.feedseg\.zip"):
        loading.export(run, tmp_path / "model.zip", {})
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        loading.export(tmp_path, tmp_path / "m.feedseg.zip", {})
    assert not list(tmp_path.iterdir())


def changed(file, target, **replaced):
    """A copy with other content in some members; None leaves one out."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = replaced.get(name.partition(".")[0], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def manifest_with(file, **entries) -> bytes:
    return json.dumps(model_file.read_manifest(file) | entries).encode()


def test_damaged_files_are_named(file, tmp_path):
    bad = tmp_path / "bad.feedseg.zip"
    other = io.BytesIO()
    np.save(other, np.zeros((1, 32, 32, 1), np.float32))
    cases = {
        r"weights\.safetensors is not what model\.json says": dict(weights=b"1234"),
        r"test_input\.npy is not what": dict(test_input=other.getvalue()),
        r"no whole feedseg model \(KeyError": dict(weights=None),
        r"form 2 of a model file": dict(model=manifest_with(file, version=2)),
        "is no feedseg model": dict(model=b"[]"),
        "no proper 'name'": dict(model=manifest_with(file, network={})),
        "no proper 'facts'": dict(model=manifest_with(file, facts=[])),
        "no proper 'channels'": dict(model=manifest_with(file, facts=FACTS | {"channels": "one"})),
    }
    for message, replaced in cases.items():
        with pytest.raises(UserError, match=rf"bad\.feedseg\.zip: .*{message}|{message}"):
            model_file.read(changed(file, bad, **replaced))
    whole = file.read_bytes()
    for cut in (b"", whole[:100], whole[:-30], b"PK" + whole[40:]):
        bad.write_bytes(cut)
        with pytest.raises(UserError, match=r"bad\.feedseg\.zip: is no whole feedseg model"):
            model_file.read(bad)
    for at in range(60, len(whole) - 400, 97):  # a byte anywhere in the packed files
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"bad\.feedseg\.zip"):
            model_file.read(bad)
    with pytest.raises(UserError, match="`feedseg export` makes a model file"):
        model_file.read_manifest(tmp_path)
    with pytest.raises(UserError, match="no such model file"):
        model_file.read(tmp_path / "none.feedseg.zip")


def test_no_pickle_is_read(file, tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    digest = model_file.hashlib.sha256(stream.getvalue()).hexdigest()
    digests = model_file.read_manifest(file)["sha256"] | {"test_input.npy": digest}
    bad = changed(
        file,
        tmp_path / "bad.feedseg.zip",
        test_input=stream.getvalue(),
        model=manifest_with(file, sha256=digests),
    )
    with pytest.raises(UserError, match="Object arrays cannot be loaded"):
        model_file.read(bad)


def test_weights_of_another_network(file, tmp_path):
    network = model_file.read_manifest(file)["network"] | {"filters": [2, 5]}
    bad = changed(file, tmp_path / "bad.feedseg.zip", model=manifest_with(file, network=network))
    with pytest.raises(UserError, match=r"bad\.feedseg\.zip: weights of another network"):
        loading.load(bad)


def test_an_older_model_lacks_later_arguments(tmp_path):
    """A network argument came later; a model made before it can still be read."""
    config = baseline.get_config("model=ru_net")
    run = make_run(tmp_path / "run", config)
    file = loading.export(run, tmp_path / "m.feedseg.zip", {})
    network = model_file.read_manifest(file)["network"]
    del network["pass_norms"]
    old = changed(file, tmp_path / "old.feedseg.zip", model=manifest_with(file, network=network))
    assert loading.verify(old) == loading.verify(file)


# Names and Python -------------------------------------------------------------------------------


def test_models_by_name(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundled, "FOLDER", file.parent)
    assert bundled.models() == {"model": file} and bundled.find("model") == file
    with pytest.raises(UserError, match=r"did you mean 'model'\? Bundled models: model"):
        bundled.find("modell")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()  # of a data set, say
    assert bundled.find("model") == file
    assert "membrane" in bundled.listing() and "50.0" in bundled.listing()
    assert cli.run(["models", "model"]) == 0
    said = capsys.readouterr().out
    assert "CC0-1.0" in said and "within the tolerance" in said


def test_arrays_from_python(file):
    model = feedseg.load(file)
    page = RNG.integers(0, 256, (40, 44), dtype=np.uint8)
    expected = loading.load(file).apply(page[None, ..., None] / np.float32(255))[0]
    one = model.predict(page)
    np.testing.assert_allclose(one.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(one.labels, expected.argmax(-1))
    assert one.uncertainty is None and one.class_names == ("background", "membrane")
    np.testing.assert_array_equal(model.predict(page[..., None]).labels, one.labels)
    stack = model.predict(np.stack([page, page.T[:40, :44].repeat(2, 1)[:, :44]]), dihedral=True)
    assert stack.labels.shape == (2, 40, 44)
    unsure = model.predict(page[:20], dihedral=True, uncertainty=True)
    assert unsure.uncertainty.shape == (20, 44) and float(unsure.uncertainty.max()) > 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((0, 4)), "shape"),
        (RNG.random((2, 8, 8, 3)), "3 channel"),
        (np.full((8, 8), 3.0), "values from 3 to 3"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.zeros((8, 8), complex), "complex"),
    ],
)
def test_arrays_it_cannot_take(file, image, message):
    with pytest.raises(UserError, match=message):
        feedseg.load(file).predict(image)


def test_predict_takes_a_model_file(file, tmp_path):
    import tifffile

    page = RNG.integers(0, 256, (40, 44), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", page)
    (written,) = predict.predict(file, tmp_path / "a.tif", tmp_path / "out", progress=False)
    np.testing.assert_array_equal(tifffile.imread(written), feedseg.load(file).predict(page).labels)


@pytest.mark.parametrize("name", sorted(bundled.models()))
def test_models_that_come_along_are_whole_small_and_described(name):
    path = bundled.models()[name]
    assert path.stat().st_size < 2e6 and loading.verify(path) < loading.TOLERANCE
    described = model_file.read_manifest(path)
    assert set(described["card"]) == set(CARD_KEYS)
    assert described["scores"]["final"]["miou"] > 0.7
