"""Averaging a model over the orientations of its image."""

import jax.numpy as jnp
import numpy as np
from test_predict_files import Fake

from feedseg.trained import dihedral_mean


def directional(image):
    """A model that sees what lies to the right: class 1 where the right neighbour is bright."""
    right = jnp.roll(image[..., 0], -1, axis=2)
    return jnp.stack([1 - right, right], -1)


def test_dihedral_mean_is_the_mean_over_the_four_neighbours():
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
