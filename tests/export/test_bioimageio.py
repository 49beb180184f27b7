"""bioimage.io packages: bioimageio.core gives what feedseg gives, from raw images on."""

import json
import zipfile

import numpy as np
import pytest
import tifffile

from configs import baseline
from feedseg import cli
from feedseg.export import bioimageio, bioimageio_readme, bioimageio_spec, export
from feedseg.inference import loading, tiling
from feedseg.io import normalize
from feedseg.runtime.errors import UserError
from tests.inference.test_model_file import FACTS, make_run

RNG = np.random.default_rng(0)
CARD = {
    "description": "a test",
    "licence": "CC-BY-4.0",
    "citation": "A. Name: a test. 2020, doi:10.1234/abc.5.",
    "authors": "A. Name; B. Name",
    "limits": "everywhere",
}


def libraries():
    for name in ("jax2onnx", "onnx", "onnxruntime", "bioimageio.spec", "bioimageio.core"):
        pytest.importorskip(name, reason="pip install 'feedseg[bioimageio]'")
    from bioimageio.spec.common import FileDescr

    try:
        FileDescr(source=__file__).model_dump(mode="json")
    except Exception:
        pytest.skip("this bioimageio.spec fails with this pydantic")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("bio") / "run", baseline.get_config("model=unet"))


@pytest.fixture(scope="module")
def file(run):
    libraries()
    to = run.parent / "tiny.bioimageio.zip"
    said = export.export(run, to, CARD)
    assert "it passes the test of bioimageio.core" in said and "to publish" not in said
    return to


def changed(run, folder, **facts):
    """The same run with other facts."""
    folder.mkdir()
    for path in run.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "data.json").unlink()
    (folder / "data.json").write_text(json.dumps({**FACTS, **facts}))
    return folder


def in_core(file, raw):
    """Probabilities of bioimageio.core for a raw image [h, w], without a border around it."""
    from bioimageio.core import create_prediction_pipeline, load_model_description
    from bioimageio.core.digest_spec import create_sample_for_model

    description = load_model_description(file)
    sample = create_sample_for_model(description, inputs={"image": raw[None, ..., None]})
    pipeline = create_prediction_pipeline(description)
    found = pipeline.predict_sample_without_blocking(
        sample, skip_input_padding=True, skip_output_cropping=True
    )
    return found.members["probabilities"].data.values


def in_feedseg(run, raw):
    model = loading.load(run)
    limits = normalize.limits(raw[..., None], model.normalization, model.percentiles)
    return np.asarray(model.apply(normalize.apply(raw[None, ..., None], *limits)))


def sides(run):
    model = loading.load(run)
    least = tiling.smallest_tile(model.halo, model.stride)
    return least, least + model.stride


def test_core_gives_what_feedseg_gives_for_raw_bytes(run, file):
    raw = RNG.integers(0, 256, sides(run), np.uint8)
    np.testing.assert_allclose(in_core(file, raw), in_feedseg(run, raw), atol=1e-5)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_the_type_of_the_images_can_be_said(run, tmp_path, kind):
    libraries()
    to = tmp_path / "tiny.bioimageio.zip"
    export.export(run, to, CARD, pixel_type=kind, tile=40)
    raw = RNG.integers(0, 2**16, (40, 40)).astype(np.uint16)
    raw = raw if kind == "uint16" else (raw / 2**15).astype(np.float32)  # half of it above 1
    np.testing.assert_allclose(in_core(to, raw), in_feedseg(run, raw), atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_percentiles_are_those_of_feedseg(run, tmp_path_factory, kind):
    libraries()
    folder = tmp_path_factory.mktemp("percentile")
    other = changed(run, folder / "run", normalization="image_percentile", percentiles=[2.0, 90.0])
    to = folder / "tiny.bioimageio.zip"
    export.export(other, to, CARD, tile=40)
    raw = (200 * RNG.random((40, 40)) ** 3 + 20).astype(kind)
    np.testing.assert_allclose(in_core(to, raw), in_feedseg(other, raw), atol=1e-5)


def test_the_description_says_what_the_model_is(run, file):
    from bioimageio.core import load_model_description

    model, described = loading.load(run), load_model_description(file)
    least, _ = sides(run)
    _, y, x, channel = described.inputs[0].axes
    assert (y.size.min, y.size.step) == (x.size.min, x.size.step) == (least, model.stride)
    assert channel.channel_names == ["grey"]
    assert described.outputs[0].axes[1].halo == model.halo
    assert described.outputs[0].axes[3].channel_names == list(model.class_names)
    assert [author.name for author in described.authors] == ["A. Name", "B. Name"]
    assert described.license == "CC-BY-4.0" and described.cite[0].doi == "10.1234/abc.5"
    assert described.name == "tiny (unet by feedseg)"
    with zipfile.ZipFile(file) as archive:
        text = archive.read("README.md").decode()
    assert "## Validation" in text and "| final | 50.0 |" in text and "everywhere" in text


def test_a_fixed_side_and_an_example_of_ones_own(run, tmp_path):
    libraries()
    from bioimageio.core import load_model_description
    from bioimageio.spec.utils import load_array

    image = RNG.integers(0, 256, (64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    words = f"export {run} --to {tmp_path}/m.bioimageio.zip --tile 40 --example {tmp_path}/a.tif"
    assert cli.guarded(cli.run, words.split()) == 0
    described = load_model_description(tmp_path / "m.bioimageio.zip")
    assert described.inputs[0].axes[1].size == 40
    np.testing.assert_array_equal(
        load_array(described.inputs[0].test_tensor)[0, ..., 0], image[:40, :40]
    )


def test_what_is_missing_to_publish_is_named(run, tmp_path):
    libraries()
    said = export.export(run, tmp_path / "m.bioimageio.zip", {"description": "a test"}, tile=40)
    assert said.endswith("to publish it add --licence, --citation, --authors")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("licence", "free for all", r"m\.bioimageio\.zip: .*license .*change --licence"),
        ("authors", "A/B", r"m\.bioimageio\.zip: .*authors .*change --authors"),
        ("citation", "A. Name, 2020", "--citation 'A. Name, 2020': .* wants a DOI or an address"),
    ],
)
def test_a_card_that_is_not_taken_is_named_by_its_option(run, tmp_path, key, text, message):
    libraries()
    with pytest.raises(UserError, match=message):
        export.export(run, tmp_path / "m.bioimageio.zip", {**CARD, key: text}, tile=40)
    assert not list(tmp_path.iterdir())


def test_what_fails_the_test_of_core_is_not_written(run, tmp_path, monkeypatch):
    libraries()
    wrong = [{"id": "scale_linear", "kwargs": {"gain": 0.5}}]
    monkeypatch.setattr(bioimageio_spec, "preprocessing", lambda model, kind: wrong)
    kept = tmp_path / "m.bioimageio.zip"
    kept.write_bytes(b"good")
    with pytest.raises(UserError, match=r"not written, it fails the test of bioimageio\.core: "):
        export.export(run, kept, CARD, tile=40, overwrite=True)
    assert kept.read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 1


def test_missing_libraries_are_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr(bioimageio, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs bioimageio\.spec, bioimageio\.core; pip install"):
        export.export(run, tmp_path / "m.bioimageio.zip", CARD)


def test_pixel_types_that_say_nothing_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(bioimageio, "_is_there", lambda name: True)
    to = tmp_path / "m.bioimageio.zip"
    with pytest.raises(UserError, match="--pixel-type int8: choose one of uint8, uint16, float32"):
        export.export(run, to, CARD, pixel_type="int8")
    other = changed(run, tmp_path / "run", normalization="image_percentile")
    with pytest.raises(UserError, match="--pixel-type uint16: this model takes the percentiles"):
        export.export(other, to, CARD, pixel_type="uint16")
    with pytest.raises(UserError, match=r"--pixel-type uint16: is for \.bioimageio\.zip alone"):
        export.export(run, tmp_path / "m.onnx", CARD, pixel_type="uint16")


def test_members_that_normalize_differently_are_refused(run):
    model = loading.load(run)._replace(contracts=(("dtype_range", (1, 99)),) * 2)
    with pytest.raises(UserError, match="no words; export a member"):
        bioimageio._pixel_type("m", model, "")


def test_a_citation_gives_its_doi_or_its_address():
    def cite(text):
        return bioimageio_readme.fields({"citation": text})["cite"][0]

    assert cite("A (doi:10.6084/m9.figshare.1).")["doi"] == "10.6084/m9.figshare.1"
    assert cite("A, https://a.org/b.")["url"] == "https://a.org/b"


def test_a_network_of_whole_images_has_one_side_and_no_halo(run):
    model = loading.load(run)._replace(window=32)
    paths = dict.fromkeys(("test_input.npy", "test_output.npy"))
    taken = bioimageio_spec._input(model, 32, "uint8", paths)["axes"]
    given = bioimageio_spec._output(model, paths)["axes"]
    assert [axis["size"] for axis in taken[1:3]] == [32, 32]
    assert not any("halo" in axis for axis in given)
