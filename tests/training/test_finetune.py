"""Trainings that begin with a trained model: what is taken, and what stays random."""

import json
import shutil

import numpy as np
import pytest

from configs import common
from feedseg import main
from feedseg.inference import loading
from feedseg.inference.trained import ModelParts
from feedseg.runs.checkpoint import read_tree
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.training import finetune, train
from tests.support import tiny

SETTINGS = common.model("unet", filters=(4, 8))
OWN = {"class_names": ["a", "b", "c"], "channels": 1, "size_px": [32, 32]}


def variables(seed: int, classes: int, channels: int, settings=SETTINGS) -> dict:
    """Random arrays of a network."""
    facts = {"class_names": list(range(classes)), "channels": channels, "size_px": [32, 32]}
    shapes = finetune.weights.shapes(settings, facts, "x")
    rng = np.random.default_rng(seed)
    flat = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return finetune.nest(flat)


def begun(monkeypatch, settings=SETTINGS, ours=SETTINGS, **theirs):
    """Our arrays, those of a model with other facts, and what is begun with."""
    facts = {**OWN, **theirs}
    model = variables(1, len(facts["class_names"]), facts["channels"], settings)
    monkeypatch.setattr(
        loading, "parts", lambda where: ModelParts(dict(settings), model, "float32", facts)
    )
    mine = variables(0, 3, 1, ours)
    found = finetune.start("model", mine, ours, OWN)
    flat = [finetune.to_host(each) for each in (mine, model, found.variables)]
    return *flat, found.said


def test_the_same_network_is_taken_whole(monkeypatch):
    _, model, found, said = begun(monkeypatch)
    for name, array in model.items():
        np.testing.assert_array_equal(found[name], array)
    assert said == f"begins with model: {len(model)} of {len(model)} arrays are taken from it"


@pytest.mark.parametrize("known", [["c", "a"], ["c", "b", "a"], ["x", "b", "y", "c"]])
def test_classes_are_matched_by_name(monkeypatch, known):
    mine, model, found, said = begun(monkeypatch, class_names=known)
    for kind in ("kernel", "bias"):
        name = f"params/classifier/{kind}"
        for number, each in enumerate("abc"):
            source = (
                model[name][..., known.index(each)] if each in known else mine[name][..., number]
            )
            np.testing.assert_array_equal(found[name][..., number], source)
    others = [name for name in model if "classifier" not in name]
    assert others and all((found[name] == model[name]).all() for name in others)
    assert ("new classes: a" in said) == ("a" not in known)


def test_classes_without_a_common_name_are_new(monkeypatch):
    mine, _, found, said = begun(monkeypatch, class_names=["x", "y", "z"])
    np.testing.assert_array_equal(
        found["params/classifier/kernel"], mine["params/classifier/kernel"]
    )
    assert "new classes: a, b, c" in said


def test_probabilities_that_are_fed_back_are_matched_too(monkeypatch):
    settings = common.model("feedback_unet", filters=(4, 8, 8), rounds=2)
    mine, model, found, _ = begun(
        monkeypatch, settings=settings, ours=settings, class_names=["b", "a", "x"]
    )
    name = "params/round/enc1_conv1/kernel"
    assert finetune.class_axes(settings, OWN)[name] == 2
    for number, source in enumerate(
        (model[name][:, :, 1], model[name][:, :, 0], mine[name][:, :, 2])
    ):
        np.testing.assert_array_equal(found[name][:, :, number], source)


def test_classes_among_other_entries_stay_random_where_they_differ(monkeypatch):
    """Such as 2 + K input channels, or one entry for each pair of classes."""

    def shapes(settings, facts, where):
        count = len(facts["class_names"])
        return {"params/a": (2 + count,), "params/b": (count, count), "params/c": (count, 4)}

    monkeypatch.setattr(finetune.weights, "shapes", shapes)
    assert finetune.class_axes({}, OWN) == {"params/a": None, "params/b": None, "params/c": 0}
    mine, model, found, _ = begun(monkeypatch, class_names=["b", "c", "a"])
    for name in ("params/a", "params/b"):
        np.testing.assert_array_equal(found[name], mine[name])
    np.testing.assert_array_equal(found["params/c"], model["params/c"][[2, 0, 1]])


def test_other_channels_share_the_first_layer(monkeypatch):
    """A gray image, in each of three channels, gives what it gave."""
    _, model, found, said = begun(monkeypatch, channels=3)
    name = "params/enc1_conv1/conv/kernel"
    np.testing.assert_allclose(found[name][..., 0, :], model[name].sum(-2), rtol=1e-6)
    assert said.endswith("first layer: 3 channels become 1")


def test_another_network_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"train\.start=model: its network, aep_net, has no layer"):
        begun(monkeypatch, settings=common.model("aep_net"))


def test_a_run_begins_with_another_and_goes_on(tmp_path, capsys):
    """The state before its first step is the best one of the other run."""
    first = tiny.get_config(train__epochs=1)
    train.run(first, tmp_path / "first", Log())
    second = tiny.get_config(
        train__epochs=1, train__start=str(tmp_path / "first"), optimizer__learning_rate=1e-12
    )
    train.run(second, tmp_path / "second", Log())
    best, _ = read_tree(tmp_path / "first" / "best")
    begun_with, _ = read_tree(tmp_path / "second" / "best")
    for name, array in finetune.to_host(best["params"]).items():
        np.testing.assert_allclose(finetune.to_host(begun_with["params"])[name], array, atol=1e-5)
    shutil.rmtree(tmp_path / "first")  # it is needed no more
    second.train.epochs = 2
    train.run(second, tmp_path / "second", Log())
    assert "arrays are taken from it" in (tmp_path / "second" / "log.txt").read_text()
    assert json.loads((tmp_path / "second" / "config.json").read_text())["train"]["start"]
    file = str(tiny.ROOT / "tests/support/tiny.py")
    wrong = ["--config", file, "--config.train.start=nothing", f"--workdir={tmp_path / 'x'}"]
    assert main.guarded(main.train, wrong) == 2
    assert "nothing" in capsys.readouterr().err
