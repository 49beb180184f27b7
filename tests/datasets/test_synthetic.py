"""Synthetic cells: reproducible, with plausible classes and a truth that noise does not touch."""

from types import SimpleNamespace

import numpy as np
import pytest

from feedseg.datasets import synthetic
from feedseg.runtime.errors import UserError


def options(count=4, size=96, classes=3, seed=0):
    return SimpleNamespace(
        synthetic_count=count, synthetic_size=size, synthetic_classes=classes, synthetic_seed=seed
    )


def load(**changes):
    return synthetic.load(None, options(**changes))


def test_shapes_types_and_names():
    source = load(count=3, size=100)
    assert source.class_names == ("cytoplasm", "membrane", "nucleus")
    assert len(source.class_colors) == 3
    assert len({section.name for section in source.sections}) == 3
    for section in source.sections:
        assert (section.image.shape, section.image.dtype) == ((100, 100, 1), np.uint8)
        assert (section.label.shape, section.label.dtype) == ((100, 100), np.uint8)


def test_the_seed_decides_every_pixel():
    first, again, other = load(), load(), load(seed=1)
    for a, b, c in zip(first.sections, again.sections, other.sections, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.label, b.label)
        assert np.any(a.label != c.label)
    assert np.any(first.sections[0].label != first.sections[1].label)


def test_an_image_does_not_depend_on_how_many_are_made():
    few, many = load(count=2), load(count=4)
    for a, b in zip(few.sections, many.sections[:2], strict=True):
        np.testing.assert_array_equal(a.image, b.image)


def test_class_fractions_are_those_of_tissue():
    labels = np.stack([section.label for section in load(count=12, size=128).sections])
    cytoplasm, membrane, nucleus = np.bincount(labels.ravel(), minlength=3) / labels.size
    assert 0.15 < membrane < 0.25
    assert 0.08 < nucleus < 0.15
    assert cytoplasm + membrane + nucleus == pytest.approx(1)
    for label in labels:
        assert set(np.unique(label)) == {0, 1, 2}


def test_two_classes_are_the_membranes_of_the_same_images():
    two, three = load(classes=2), load(classes=3)
    assert two.class_names == ("background", "membrane")
    for a, b in zip(two.sections, three.sections, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.label, b.label == 1)


def test_another_exposure_leaves_the_truth_alone():
    scene = synthetic.draw(np.random.default_rng(0), 64, 64)
    before = scene.label.copy()
    first = synthetic.expose(np.random.default_rng(1), scene)
    second = synthetic.expose(np.random.default_rng(2), scene)
    assert np.any(first != second)
    np.testing.assert_array_equal(scene.label, before)


@pytest.mark.parametrize("shape", [(16, 16), (48, 131), (200, 33)])
def test_any_size(shape):
    scene = synthetic.draw(np.random.default_rng(0), *shape)
    assert scene.label.shape == shape
    assert synthetic.expose(np.random.default_rng(0), scene).shape == (*shape, 1)


def test_nuclei_keep_off_membranes():
    for section in load().sections:
        nucleus, membrane = section.label == 2, section.label == 1
        touching = nucleus[1:] & membrane[:-1] | nucleus[:-1] & membrane[1:]
        assert touching.sum() < 0.01 * nucleus.sum()


def test_structures_are_brighter_but_grey_values_alone_do_not_tell_them():
    sections = load(count=12, size=128).sections
    image = np.concatenate([section.image[..., 0].ravel() for section in sections]).astype(float)
    label = np.concatenate([section.label.ravel() for section in sections])
    mean = [image[label == index].mean() for index in range(3)]
    assert mean[1] > mean[0] + 10
    assert mean[2] > mean[0] + 10
    assert 30 < image.mean() < 110  # low light
    assert np.mean(image == 255) < 0.01
    best = max(
        np.sum((image > t) & (label == 1)) / np.sum((image > t) | (label == 1))
        for t in range(20, 200, 5)
    )
    assert 0.2 < best < 0.5  # IoU of the membrane by the best threshold


def test_camera_noise_is_poisson_plus_read_noise():
    for light in (0.2, 0.8):
        image = synthetic.photograph(np.random.default_rng(0), np.full((300, 300), light), 50, 3)
        assert image.mean() == pytest.approx(10 + 3 * 50 * light, rel=0.01)
        assert image.var() == pytest.approx(3**2 * (50 * light + 1.5**2), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"count": 0}, "synthetic_count=0"),
        ({"size": 8}, "synthetic_size=8"),
        ({"classes": 4}, "synthetic_classes=4"),
        ({"seed": -1}, "synthetic_seed=-1"),
    ],
)
def test_impossible_options_are_named(changes, key):
    with pytest.raises(UserError, match=f"data.{key}"):
        load(**changes)
