"""Averaging a model over the orientations of its image."""

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

from feedseg.inference.trained import dihedral_mean, only_labels, with_disagreement
from feedseg.inference.uncertainty import disagreement
from feedseg.io import images
from feedseg.runtime.errors import UserError
from tests.support.fake_model import Fake, run


def directional(image):
    """A model that sees what lies to the right: class 1 where the right neighbor is bright."""
    right = jnp.roll(image[..., 0], -1, axis=2)
    return jnp.stack([1 - right, right], -1)


def test_dihedral_mean_is_the_mean_over_the_four_neighbors():
    image = np.random.default_rng(0).random((2, 5, 7, 1)).astype(np.float32)
    found = dihedral_mean(Fake(apply=directional)).apply(image)
    plane = image[..., 0]
    around = [np.roll(plane, step, axis) for axis in (1, 2) for step in (1, -1)]
    np.testing.assert_allclose(found[..., 1], np.mean(around, 0), rtol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


def test_an_equivariant_model_is_left_as_it_is():
    image = np.random.default_rng(1).random((1, 6, 6, 1)).astype(np.float32)
    model = Fake(apply=lambda image: jnp.concatenate([image, 1 - image], -1))
    np.testing.assert_allclose(dihedral_mean(model).apply(image), model.apply(image), rtol=1e-6)


def test_orientations_are_the_answers_that_disagree():
    image = np.random.default_rng(2).random((1, 5, 7, 1)).astype(np.float32)
    averaged = dihedral_mean(Fake(apply=directional))
    answers = averaged.answers(image)
    assert answers.shape == (8, 1, 5, 7, 2)
    np.testing.assert_allclose(answers.mean(0), averaged.apply(image), rtol=1e-6)
    found = with_disagreement(averaged).apply(image)
    np.testing.assert_allclose(found[..., :2], averaged.apply(image), rtol=1e-6)
    np.testing.assert_allclose(found[..., 2], disagreement(answers), rtol=1e-6)


def test_disagreement_by_hand():
    """Equal answers: 0. Two certain, different ones: 1 bit. Three of four alike: 0.811 bit."""
    p = np.eye(4)[[[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 1]]]  # [S, pixels, K]
    found = disagreement(p[:, None, None])[0, 0]
    np.testing.assert_allclose(found, [0, 1, 0.811278], atol=1e-6)


def test_one_answer_cannot_disagree():
    with pytest.raises(UserError, match="add --dihedral"):
        with_disagreement(Fake(apply=directional))


def test_a_model_of_labels_writes_the_same_files(tmp_path):
    image = np.random.default_rng(3).integers(0, 256, (2, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    model = Fake(apply=directional)
    soft = run(tmp_path / "a.tif", tmp_path / "soft", model, tables=True, tile=16)
    hard = run(tmp_path / "a.tif", tmp_path / "hard", only_labels(model), tables=True, tile=16)
    assert [path.read_bytes() for path in soft] == [path.read_bytes() for path in hard]
    assert 0 < images.read_label(hard[0]).mean() < 1


def test_a_model_of_labels_says_where_it_gives_no_numbers(tmp_path):
    def broken(image):
        return directional(image).at[0, 3, 4].set(jnp.nan)

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(UserError, match="the model gives NaN"):
        run(tmp_path / "a.tif", tmp_path / "out", only_labels(Fake(apply=broken)))
