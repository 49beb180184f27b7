"""The blood-cell U-Net's output and what gray masks do to its accuracy and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from feedseg.datasets.common.dataset import Dataset
from feedseg.evaluation import test_split
from feedseg.runtime.logs import Log
from feedseg.training import train
from tests.support import tiny
from tests.support.networks import build, random_variables


def test_two_classes_are_one_sigmoid():
    """Softmax of [0, z] is (1 - sigmoid(z), sigmoid(z))."""
    model = build("blood_unet", 2, filters=(6, 8))
    image = np.random.default_rng(0).random((1, 8, 8, 1)).astype(np.float32)
    logits, _ = model.apply(random_variables(model, image.shape), image, train=False)
    assert not logits[..., 0].any() and logits[..., 1].std() > 0.1
    np.testing.assert_allclose(jax.nn.softmax(logits)[..., 1], jax.nn.sigmoid(logits[..., 1]), 1e-6)


def dataset(mask: list[float], void: int = 0) -> Dataset:
    """One image of a row of pixels."""
    count = len(mask)
    label = np.array([[1, 0] * count])[:, :count].astype(np.uint8)
    label[0, count - void :] = 255
    return Dataset(
        name="row",
        images=np.zeros((1, 1, count, 1), np.uint8),
        labels=label[None],
        low=np.zeros(1, np.float32),
        high=np.ones(1, np.float32),
        source_ids=np.zeros(1, np.int32),
        copy_ids=np.zeros(1, np.int32),
        item_names=("row",),
        class_names=("background", "cell"),
        class_colors=((0, 0, 0), (255, 0, 0)),
        maps={"mask": np.array(mask, np.float32)[None, None]},
    )


class Given:
    """A model that answers with given probabilities."""

    def __init__(self, foreground):
        q = jnp.asarray(foreground, jnp.float32)[None, None]
        self.apply = lambda image: jnp.stack([1 - q, q], -1)


def test_scores_by_hand():
    """Of four pixels two can be right, one of them is; a void one does not count."""
    data = dataset([1.0, 0.0, 0.5, 0.25, 0.0], void=1)
    found = test_split.mask_scores(Given([0.8, 0.6, 0.5, 0.25, 0.9]), data, np.array([0]))
    assert found["accuracy"] == pytest.approx(1 / 4)
    assert found["accuracy_bound"] == pytest.approx(2 / 4)
    quarter = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    loss = [-np.log(0.8), -np.log(0.4), np.log(2), quarter]
    assert found["loss"] == pytest.approx(np.mean(loss), rel=1e-5)
    assert found["loss_floor"] == pytest.approx((np.log(2) + quarter) / 4, rel=1e-5)


def test_certain_and_wrong_is_a_finite_loss():
    found = test_split.mask_scores(Given([0.0, 1.0]), dataset([1.0, 0.0]), np.array([0]))
    assert found["loss"] == pytest.approx(-np.log(1e-7), rel=1e-3)
    assert found["accuracy"] == 0 and found["loss_floor"] == 0


def test_a_run_reports_them(tmp_path):
    config = tiny.get_config(train__epochs=1)
    config.data.update(foreground=("nucleus",), mask_values=(0.0, 0.0, 0.9))
    config.model = common.model("blood_unet", filters=(2, 3))
    with config.unlocked():
        config.loss.terms = dict(final=dict(mask_cross_entropy=1.0))
    result = train.run(config, tmp_path, Log())
    assert result["class_names"] == ["background", "nucleus"]
    assert 0 < result["mask"]["accuracy_bound"] < 1
    assert result["mask"]["accuracy"] <= result["mask"]["accuracy_bound"]
    assert 0 < result["mask"]["loss_floor"] < result["mask"]["loss"]
