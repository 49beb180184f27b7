"""Model files: what goes in comes out, what is damaged is named, nothing in them is run."""

import hashlib
import io
import json
import tracemalloc
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
    packed = dict(mode="w", compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, **packed) as new:
        for name in old.namelist():
            data = replaced.get(name.partition(".")[0], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def manifest_with(file, **entries) -> bytes:
    return json.dumps(model_file.read_manifest(file) | entries).encode()


def signed(file, target, **replaced):
    """As `changed`, with the digests of what is in it."""
    digests = dict(model_file.read_manifest(file)["sha256"])
    for name in digests:
        if data := replaced.get(name.partition(".")[0]):
            digests[name] = hashlib.sha256(data).hexdigest()
    return changed(file, target, model=manifest_with(file, sha256=digests), **replaced)


def test_damaged_files_are_named(file, tmp_path):
    bad = tmp_path / "bad.feedseg.zip"
    other = io.BytesIO()
    np.save(other, np.zeros((1, 32, 32, 1), np.float32))
    cases = {
        r"weights\.safetensors is not what model\.json says": dict(weights=b"1234"),
        r"test_input\.npy is not what": dict(test_input=other.getvalue()),
        r"no whole feedseg model \(KeyError": dict(weights=None),
        r"form 2 of a model file": dict(model=manifest_with(file, version=2)),
        "no JSON object": dict(model=b"[]"),
        "is no feedseg model": dict(model=b"{}"),
        "nested more than 64": dict(model=b'{"a":' + b"[" * 10**5),
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


WRONG = {
    r"network\.name is missing": dict(network={}),
    r"facts=\[\]: the entries": dict(facts=[]),
    r"facts\.channels='one': a whole number, from 1": dict(facts=dict(channels="one")),
    r"facts\.channels=-1: from 1": dict(facts=dict(channels=-1)),
    r"facts\.channels=1000000000: from 1 to": dict(facts=dict(channels=10**9)),
    r"facts\.class_names=\[\]: a list of 2 to 255": dict(facts=dict(class_names=[])),
    r"facts\.class_names: names repeat": dict(facts=dict(class_names=["a", "a"])),
    r"facts\.class_colors: 3 colors of 2": dict(facts=dict(class_colors=[[0, 0, 0]] * 3)),
    r"class_colors\[1\]\[0\]='red'": dict(facts=dict(class_colors=[[0] * 3, ["red", 0, 0]])),
    r"class_colors\[0\]\[2\]=256": dict(facts=dict(class_colors=[[0, 0, 256], [1, 1, 1]])),
    r"facts\.percentiles\[0\]=None": dict(facts=dict(percentiles=[None, 1])),
    r"percentiles=\[99, 1\]: two rising": dict(
        facts=dict(percentiles=[99, 1], normalization="image_percentile")
    ),
    r"facts\.normalization='x': choose": dict(facts=dict(normalization="x")),
    r"facts\.size_px=\[32\]": dict(facts=dict(size_px=[32])),
    r"objects\.a\[1\]='b'": dict(facts=dict(training_images={"objects": {"a": [1, "b", 2]}})),
    r"compute_dtype='object': choose": dict(compute_dtype="object"),
    r"card\.licence=1: a text": dict(card={"licence": 1}),
    r"scores\.final\.miou='x'": dict(scores={"final": {"miou": "x"}}),
    r"network\.members\[0\]=1": dict(network=dict(name="ensemble", rule="awel", members=[1, 2])),
    r"sha256\.a='x'": dict(sha256={"a": "x"}),
}


@pytest.mark.parametrize("message", WRONG)
def test_manifests_are_checked(file, tmp_path, message):
    entries = dict(WRONG[message])
    if isinstance(entries.get("facts"), dict):
        entries["facts"] = FACTS | entries["facts"]
    bad = changed(file, tmp_path / "bad.feedseg.zip", model=manifest_with(file, **entries))
    for read in (model_file.read, model_file.read_manifest, loading.load):
        pattern = rf"bad\.feedseg\.zip: model\.json: .*{message}"
        with pytest.raises(UserError, match=pattern) as error:
            read(bad)
        assert "\n" not in str(error.value)


NETWORKS = {
    r"model\.rounds=1000000000: from 1 to 100": dict(name="feedback_unet", rounds=10**9),
    r"model\.filters=\(\): a list of 1 to 12": dict(name="unet", filters=[]),
    r"model\.filters\[0\]=-1": dict(name="unet", filters=[-1]),
    r"model\.dropout='x'": dict(name="unet", dropout="x"),
    r"does not fit network 'unet': evil": dict(name="unet", evil=1),
    r"network2\.name='aep'": dict(name="aep", network2=dict(name="aep")),
    r"no network can be made of its settings \(initializer='x'": dict(name="unet", initializer="x"),
}


@pytest.mark.parametrize("message", NETWORKS)
def test_networks_are_checked(file, tmp_path, message):
    model = manifest_with(file, network=NETWORKS[message])
    bad = changed(file, tmp_path / "bad.feedseg.zip", model=model)
    with pytest.raises(UserError, match=rf"bad\.feedseg\.zip: .*{message}"):
        loading.load(bad)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ZEROS = np.zeros((1, 64, 64, 1), np.float32)
ARRAYS = {
    r"test_input\.npy: float64": dict(test_input=npy(ZEROS.astype(float))),
    r"test_input\.npy: float32 of shape \(64,\)": dict(test_input=npy(ZEROS[0, 0, :, 0])),
    r"test_input\.npy: .* of finite": dict(test_input=npy(ZEROS + np.nan)),
    r"do not fit 1 channels and 2": dict(test_output=npy(ZEROS)),
    r"test image is not for": dict(
        test_input=npy(ZEROS[:, :63]), test_output=npy(ZEROS[:, :63].repeat(2, -1))
    ),
}


@pytest.mark.parametrize("message", ARRAYS)
def test_arrays_are_checked(file, tmp_path, message):
    with pytest.raises(UserError, match=rf"bad\.feedseg\.zip: .*{message}"):
        loading.verify(signed(file, tmp_path / "bad.feedseg.zip", **ARRAYS[message]))


@pytest.mark.parametrize("kind", [np.int8, np.float64, np.nan])
def test_weights_are_finite_numbers_of_32_bits(file, tmp_path, kind):
    from safetensors.numpy import load, save

    with zipfile.ZipFile(file) as archive:
        arrays = load(archive.read("weights.safetensors"))
    with np.errstate(invalid="ignore"):
        wrong = {
            name: array + np.float32(kind) if kind is np.nan else array.astype(kind)
            for name, array in arrays.items()
        }
    with pytest.raises(UserError, match=r"weights\.safetensors: .* not finite float32"):
        loading.load(signed(file, tmp_path / "bad.feedseg.zip", weights=save(wrong)))


@pytest.mark.parametrize("member", ["model", "weights", "test_input", "test_output"])
def test_a_bomb_is_not_unpacked(file, tmp_path, member):
    """Of 256 MiB in a few hundred kB, of which next to nothing is unpacked."""
    bomb = changed(file, tmp_path / "bomb.feedseg.zip", **{member: bytes(2**28)})
    tracemalloc.start()
    with pytest.raises(
        UserError, match=rf"bomb\.feedseg\.zip: .*{member}\..* unpacks to more than"
    ):
        loading.load(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_scores_of_absent_classes(file, tmp_path):
    manifest = manifest_with(file, scores={"final": {"miou": None, "iou/membrane": None}})
    bad = changed(file, tmp_path / "a.feedseg.zip", model=manifest)
    assert "mean -; membrane -" in bundled.card(model_file.read_manifest(bad))


def test_no_pickle_is_read(file, tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    bad = signed(file, tmp_path / "bad.feedseg.zip", test_input=stream.getvalue())
    with pytest.raises(UserError, match="an array of object, not of numbers"):
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
