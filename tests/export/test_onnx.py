"""ONNX files: onnxruntime computes what JAX computes, and predicting with them needs no JAX."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile

from configs import baseline, feedback_unet
from feedseg.export import export
from feedseg.export import onnx as onnx_export
from feedseg.inference import backends, loading, onnx_runtime, segment
from feedseg.io.source import open_source
from feedseg.runtime.errors import UserError
from tests.export.test_stablehlo import WITHOUT
from tests.inference.test_model_file import make_run

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("onnx") / "run", baseline.get_config("model=unet"))


def converter():
    for name in ("jax2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(name, reason="pip install 'feedseg[onnx]'")


@pytest.fixture(scope="module")
def file(run):
    converter()
    said = export.export(run, run.parent / "model.onnx", {"licence": "CC0-1.0"})
    assert "differ from the model's by at most" in said
    return run.parent / "model.onnx"


def test_onnxruntime_gives_what_jax_gives_at_any_size(run, file):
    model, onnx = loading.load(run), backends.load(file)
    image = RNG.random((2, 20, 36, 1)).astype(np.float32)
    np.testing.assert_allclose(onnx.apply(image), model.apply(image), atol=1e-5)
    assert onnx.tile == 0
    for name in set(onnx._fields) - {"apply"}:
        assert getattr(onnx, name) == getattr(model, name), name


def test_orientations_and_uncertainty_are_those_of_jax(run, file):
    image = RNG.random((1, 20, 36, 1)).astype(np.float32)
    for uncertainty in (False, True):
        ours, theirs = (
            backends.load(each, dihedral=True, uncertainty=uncertainty).apply(image)
            for each in (file, run)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_fixed_side_tiles_as_exactly(run, tmp_path):
    converter()
    export.export(run, tmp_path / "m.onnx", {}, tile=40)
    model, fixed = loading.load(run), onnx_runtime.load(tmp_path / "m.onnx")
    assert fixed.tile == 40 and not fixed.window
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 255, (70, 52), np.uint8))
    with open_source(tmp_path / "a.tif") as source:
        pages = [
            np.concatenate(list(segment.predict_rows(each, segment.FittingImage(source, each))))
            for each in (fixed, model)
        ]
    np.testing.assert_allclose(*pages, atol=1e-5)
    small, large = (np.zeros((1, side, 40, 1), np.float32) for side in (20, 60))
    assert fixed.apply(small).shape == (1, 20, 40, 2)
    with pytest.raises(UserError, match=r"m\.onnx: takes tiles of 40 px, not 60 x 40"):
        fixed.apply(large)


def test_feedback_converts(tmp_path):
    converter()
    config = feedback_unet.get_config("dataset=synthetic,layout=none")
    config.model.layout = "c"  # a ConvLSTM at the bottom
    run = make_run(tmp_path / "run", config)
    export.export(run, tmp_path / "m.onnx", {})
    assert onnx_runtime.load(tmp_path / "m.onnx").tile == 0


def test_segmenting_files_imports_no_jax(run, file, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 255, (30, 44), np.uint8))
    script = (
        WITHOUT.format(names=("jax", "jaxlib", "flax", "orbax"))
        + f"""
import feedseg
import numpy as np
import tifffile
from pathlib import Path
from feedseg.inference import backends, segment
from feedseg.io.source import open_source
array = tifffile.imread("a.tif")
np.save("api.npy", feedseg.load({str(file)!r}).predict(array, dihedral=True).probabilities)
model = backends.load({str(file)!r}, dihedral=True, uncertainty=True)
with open_source(Path("a.tif")) as source:
    rows = list(segment.predict_rows(model, segment.FittingImage(source, model)))
np.save("out.npy", np.concatenate(rows))
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    model = backends.load(run, dihedral=True, uncertainty=True)
    with open_source(tmp_path / "a.tif") as source:
        fitted = segment.FittingImage(source, model)
        wanted = np.concatenate(list(segment.predict_rows(model, fitted)))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "api.npy"), wanted[..., :-1], atol=1e-5)


def test_what_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    converter()

    def wrong(model):
        return lambda image: 1 - model.apply(image)

    monkeypatch.setattr(onnx_export.portable, "probabilities", wrong)
    with pytest.raises(UserError, match=r"m\.onnx: not written, it gives other probabilities"):
        export.export(run, tmp_path / "m.onnx", {})
    assert not list(tmp_path.iterdir())


def test_backends_are_chosen_by_name_or_refused(run, file, tmp_path):
    assert backends.choose(run) == backends.choose(run, "jax") == "jax"
    assert backends.choose("m.onnx") == backends.choose(["m.onnx"], "onnx") == "onnx"
    with pytest.raises(UserError, match=r"feedseg export sstem --to sstem\.onnx"):
        backends.choose("sstem", "onnx")
    with pytest.raises(UserError, match=r"m\.onnx: an ONNX file, which JAX does not run"):
        backends.choose("m.onnx", "jax")
    with pytest.raises(UserError, match="averaged are runs and model files"):
        backends.choose(["m.onnx", "n.onnx"])
    with pytest.raises(UserError, match="--backend torch: choose jax or onnx"):
        backends.choose("m", "torch")
    with pytest.raises(UserError, match="leave out --rounds"):
        backends.load("m.onnx", rounds=2)
    with pytest.raises(UserError, match="leave out --checkpoint"):
        backends.load("m.onnx", "latest")
    with pytest.raises(UserError, match="one answer only; add --dihedral"):
        backends.load(file, uncertainty=True)


def test_files_that_are_no_models_of_feedseg_are_named(file, tmp_path):
    import onnx

    bad = tmp_path / "bad.onnx"
    with pytest.raises(UserError, match=r"bad\.onnx: cannot be read \(No such file"):
        onnx_runtime.load(bad)
    bad.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"bad\.onnx: onnxruntime cannot read it"):
        onnx_runtime.load(bad)
    model = onnx.load(file)
    (stored,) = (entry.value for entry in model.metadata_props if entry.key == onnx_runtime.KEY)
    for value, message in (
        (None, "was not made by feedseg"),
        ("{", "was not made by feedseg"),
        ('{"format": "feedseg onnx"}', "its metadata: class_names is missing; export"),
        (
            stored.replace('"channels": 1', '"channels": -1'),
            "its metadata: channels=-1: from 1",
        ),
        (stored.replace('"channels": 1', '"channels": 2'), "takes 1 channels and gives"),
        (stored.replace('"stride": ', '"stride": -'), "its metadata: stride=-"),
        (stored.replace('"contracts": []', '"contracts": [["x", [0, 1]]]'), "contracts.0.='x'"),
        ("[" * 10**5, "was not made by feedseg"),
    ):
        del model.metadata_props[:]
        if value:
            entry = model.metadata_props.add()
            entry.key, entry.value = onnx_runtime.KEY, value
        onnx.save(model, bad)
        with pytest.raises(UserError, match=rf"bad\.onnx: .*{message}"):
            onnx_runtime.load(bad)


def test_a_changed_weight_is_noticed(file, tmp_path):
    import onnx

    whole, bad = file.read_bytes(), tmp_path / "bad.onnx"
    assert whole == onnx_runtime.with_digest(whole[: -len(onnx_runtime.with_digest(b""))])
    weights = max((each.raw_data for each in onnx.load(file).graph.initializer), key=len)
    start = whole.index(weights)
    for place in range(start, start + len(weights), len(weights) // 8):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"bad\.onnx: was changed after its export"):
            onnx_runtime.load(bad)


def test_missing_libraries_are_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs jax2onnx, onnx, onnxruntime; pip install"):
        export.export(run, tmp_path / "m.onnx", {})
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setattr(onnx_runtime, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"m\.onnx: this needs onnxruntime; pip install"):
        onnx_runtime.load(tmp_path / "m.onnx")


def test_the_command_predicts_without_jax(file, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 255, (30, 44), np.uint8))
    words = f"predict --model {file} --input a.tif --output out --backend onnx --dihedral".split()
    script = WITHOUT.format(names=("jax", "jaxlib", "flax", "orbax"))
    script += f"from feedseg import cli\nsys.exit(cli.guarded(cli.run, {words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(tmp_path / "out" / "a_labels.tif").shape == (30, 44)
