"""StableHLO: what is exported computes what the model computes, and needs no feedseg."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from configs import baseline
from feedseg.export import export, portable, stablehlo
from feedseg.inference import loading
from feedseg.runtime.errors import UserError
from tests.inference.test_model_file import make_run
from tests.support import networks

pytest.importorskip("flatbuffers", reason="pip install 'feedseg[export]'")
jax = pytest.importorskip("jax")

WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("hlo") / "run", baseline.get_config("model=unet"))


@pytest.fixture(scope="module")
def file(run):
    to = run.parent / "model.stablehlo.zip"
    said = export.export(run, to, {"licence": "CC0-1.0"})
    assert "model.stablehlo.zip" in said and "at most" in said
    return to


def program(file):
    with zipfile.ZipFile(file) as archive:
        return jax.export.deserialize(bytearray(archive.read("model.stablehlo")))


def test_any_size_and_number_of_images_on_three_platforms(run, file):
    exported, model = program(file), loading.load(run)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    image = np.random.default_rng(1).random((3, 20, 36, 1)).astype(np.float32)
    np.testing.assert_allclose(exported.call(image), model.apply(image), atol=1e-5)


def test_the_archive_says_what_a_user_must_know(file):
    with zipfile.ZipFile(file) as archive:
        facts = json.loads(archive.read("model.json"))
    assert facts["class_names"] == ["background", "membrane"]
    assert facts["card"] == {"licence": "CC0-1.0"} and facts["scores"]["final"]["miou"] == 0.5
    assert facts["tile"] == 0 and facts["stride"] == 2 and facts["halo"] == 10
    assert facts["normalization"] == "dtype_range" and facts["network"]["name"] == "unet"


def test_the_example_runs_without_feedseg(file, tmp_path):
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path)
    example = tmp_path / "example.py"
    blocked = WITHOUT.format(names=("feedseg", "flax")) + f"__file__ = {str(example)!r}\n"
    example.write_text(blocked + example.read_text())
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "background" in done.stdout and float(done.stdout.split()[-1]) < 1e-5


def test_a_fixed_side_is_kept_and_checked(run, tmp_path):
    export.export(run, tmp_path / "m.stablehlo.zip", {}, tile=40)
    assert program(tmp_path / "m.stablehlo.zip").in_avals[0].shape[1:] == (40, 40, 1)
    for tile, message in ((20, "at least 22 px"), (41, "in steps of 2 px")):
        with pytest.raises(UserError, match=rf"--tile {tile}: .*{message}"):
            export.export(run, tmp_path / "n.stablehlo.zip", {}, tile=tile)


def test_what_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    def wrong(model):
        return lambda image: model.apply(image)[..., ::-1]

    monkeypatch.setattr(portable, "probabilities", wrong)
    with pytest.raises(UserError, match=r"m\.stablehlo\.zip: not written, it gives other"):
        export.export(run, tmp_path / "m.stablehlo.zip", {})
    assert not list(tmp_path.iterdir())


def test_refusals_name_what_is_wrong(run, file, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"stablehlo\.zip: exists; add --overwrite"):
        export.export(run, file, {})
    with pytest.raises(UserError, match=r"ends in \.feedseg\.zip, \.stablehlo\.zip, \.onnx"):
        export.export(run, tmp_path / "model.pt", {})
    with pytest.raises(UserError, match=r"--tile 40: a \.feedseg\.zip file is for tiles of any"):
        export.export(run, tmp_path / "model.feedseg.zip", {}, tile=40)
    monkeypatch.setattr(stablehlo, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'feedseg\[export\]'"):
        export.export(run, tmp_path / "m.stablehlo.zip", {})
    assert not list(tmp_path.iterdir())


def test_plain_forms_are_the_same_function():
    """Pooling, convolutions and up-convolutions, written for elsewhere and for here."""
    model, _, evaluate = networks.compiled("unet")
    image, _ = networks.batch(model)
    variables = networks.random_variables(model, image.shape)
    here = evaluate(variables, image)[0][0]
    with stablehlo.portable.convolve.plain_forms():
        there = model.apply(variables, image, train=False)[0]
        text = str(jax.make_jaxpr(lambda x: model.apply(variables, x, train=False)[0])(image))
    np.testing.assert_allclose(there, here, atol=1e-5)
    assert "custom_vjp" not in text or "_convolve_wide" not in text
