"""DenseNet-121 weights from a file, under the names and in the shapes of torchvision."""

import json

import jax
import numpy as np
import pytest

from feedseg import models
from feedseg.runs.directory import RunDir
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.training import pretrained, setup
from tests.support import tiny
from tests.support.networks import NARROW, build, shapes_of


@pytest.fixture(scope="module")
def state_dict() -> dict[str, np.ndarray]:
    """Arrays under the names and in the shapes of torchvision's densenet121."""
    rng, arrays = np.random.default_rng(0), {}

    def conv(name, out, channels, size):
        arrays[f"{name}.weight"] = rng.random((out, channels, size, size), np.float32)

    def norm(name, channels):
        for kind in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{name}.{kind}"] = rng.random(channels, np.float32)
        arrays[f"{name}.num_batches_tracked"] = np.asarray(7)

    conv("features.conv0", 64, 3, 7)
    norm("features.norm0", 64)
    channels = 64
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", channels)
            conv(f"{name}.conv1", 128, channels, 1)
            norm(f"{name}.norm2", 128)
            conv(f"{name}.conv2", 32, 128, 3)
            channels += 32
        if block < 4:
            norm(f"features.transition{block}.norm", channels)
            conv(f"features.transition{block}.conv", channels // 2, channels, 1)
            channels //= 2
    norm("features.norm5", channels)
    arrays["classifier.weight"] = np.zeros((1000, channels), np.float32)
    arrays["classifier.bias"] = np.zeros(1000, np.float32)
    return arrays


def old_name(name: str) -> str:
    """As the published file has it: norm.1 for norm1 inside the dense layers."""
    if "denselayer" not in name:
        return name
    for kind in ("norm", "conv"):
        for index in "12":
            name = name.replace(f".{kind}{index}.", f".{kind}.{index}.")
    return name


def write_safetensors(path, arrays) -> None:
    header, place = {"__metadata__": {"format": "pt"}}, 0
    kinds = {"f4": "F32", "i8": "I64"}
    for name, array in arrays.items():
        header[name] = dict(
            dtype=kinds[array.dtype.str[1:]],
            shape=array.shape,
            data_offsets=(place, place + array.nbytes),
        )
        place += array.nbytes
    text = json.dumps(header).encode()
    body = b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_densenet_weights_go_where_they_belong(kind, state_dict, tmp_path):
    path = tmp_path / f"weights.{kind}"
    if kind == "npz":  # the published names
        np.savez(path, **{old_name(name): array for name, array in state_dict.items()})
    else:
        write_safetensors(path, state_dict)
    start = shapes_of(build("saunet"), (1, 32, 32, 3))[1]
    merged = pretrained.merge_densenet121(start, path)
    assert jax.tree.map(lambda a: a.shape, merged) == jax.tree.map(lambda a: a.shape, start)
    assert merged["params"]["classifier"] is start["params"]["classifier"]
    assert start["params"]["encoder"] is not merged["params"]["encoder"]
    params, stats = (merged[key]["encoder"] for key in ("params", "batch_stats"))
    features = "features.denseblock3.denselayer24"
    for got, name in (
        (params["conv0"]["kernel"].transpose(3, 2, 0, 1), "features.conv0.weight"),
        (
            params["block3_layer24_conv2"]["kernel"].transpose(3, 2, 0, 1),
            f"{features}.conv2.weight",
        ),
        (params["block3_layer24_norm1"]["scale"], f"{features}.norm1.weight"),
        (params["block3_layer24_norm2"]["bias"], f"{features}.norm2.bias"),
        (stats["block3_layer24_norm2"]["mean"], f"{features}.norm2.running_mean"),
        (
            params["transition3_conv"]["kernel"][0, 0].T[..., None, None],
            "features.transition3.conv.weight",
        ),
        (stats["norm5"]["var"], "features.norm5.running_var"),
    ):
        np.testing.assert_array_equal(got, state_dict[name])
    names = [n for n in state_dict if n.startswith("features") and "tracked" not in n]
    assert len(jax.tree.leaves((params, stats))) == len(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("features.norm5.bias"), "1 arrays are missing, params/norm5/bias"),
        (lambda d: d.update({"features.conv9.weight": np.zeros(1)}), r"conv9\.weight does not"),
        (lambda d: d.update({"layer1.weight": np.zeros(1)}), r"layer1\.weight does not belong"),
        (lambda d: d.update({"features.norm5.weight": np.zeros(5)}), r"norm5\.weight has shape"),
    ],
)
def test_what_is_no_densenet121_is_refused(change, message, state_dict, monkeypatch):
    changed = dict(state_dict)
    change(changed)
    monkeypatch.setattr(pretrained, "read_state_dict", lambda path: changed)
    with pytest.raises(UserError, match=f"weights.npz: .*{message}"):
        pretrained.load_densenet121("weights.npz")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"\.npz or \.safetensors"):
        pretrained.read_state_dict(tmp_path / "densenet121.pth")
    for kind in ("npz", "safetensors"):
        path = tmp_path / f"weights.{kind}"
        with pytest.raises(UserError, match="no such file"):
            pretrained.read_state_dict(path)
        path.write_bytes(b"12345678 no weights at all")
        with pytest.raises(UserError, match=f"not a readable .{kind} file"):
            pretrained.read_state_dict(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "weights.npz", a=np.zeros(2**26, np.float32))
    with pytest.raises(UserError, match=r"npz file: a\.npy unpacks to more than the 67,108,864"):
        pretrained.read_state_dict(tmp_path / "weights.npz")


@pytest.mark.parametrize("config", ["unet", "saunet"])
def test_a_network_without_that_encoder_is_refused(config, state_dict, monkeypatch):
    monkeypatch.setattr(pretrained, "read_state_dict", lambda path: state_dict)
    start = shapes_of(models.build(2, NARROW[config]), (1, 32, 32, 3))[1]
    with pytest.raises(UserError, match="encoder is no DenseNet-121"):
        pretrained.merge_densenet121(start, "weights.npz")


def test_a_training_starts_from_the_file(tmp_path, monkeypatch):
    seen = []

    def merge(variables, path):
        seen.append(path)
        ones = jax.tree.map(np.ones_like, variables["params"])
        return {**variables, "params": ones}

    monkeypatch.setattr(pretrained, "merge_densenet121", merge)
    config = tiny.get_config(train__pretrained="weights.npz")
    _, state = setup.set_up(config, RunDir(tmp_path), Log())
    assert seen == ["weights.npz"]
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(state.params))


def test_a_training_without_the_file_is_refused(tmp_path):
    config = tiny.get_config(train__pretrained=str(tmp_path / "weights.npz"))
    with pytest.raises(UserError, match=r"weights\.npz: no such file"):
        setup.set_up(config, RunDir(tmp_path / "run"), Log())
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("path", ["nuclei", "cells.feedseg.zip", "densenet121.pth"])
def test_what_a_run_cannot_begin_with_is_refused(path):
    config = tiny.get_config(train__pretrained=path)
    with pytest.raises(UserError, match=r"DenseNet-121's ImageNet weights for model\.name=saunet"):
        pretrained.check(config.train.pretrained)
