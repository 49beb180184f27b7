"""Augmentation: image and label move together, switches that are off cost nothing."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from feedseg.runtime.errors import UserError
from feedseg.training import augment

OFF = {
    "dihedral": False,
    "rotate_deg": 0.0,
    "shift_px": 0.0,
    "elastic_sigma_px": 0.0,
    "scale": 0.0,
    "grey_offset": 0.0,
    "grey_gain": 0.0,
    "noise_sigma": 0.0,
}
SHIFT = {"shift_px": 5.0}
ELASTIC = {"elastic_sigma_px": 3.0}
GEOMETRY = {
    "dihedral": True,
    "rotate_deg": 30.0,
    "scale": 0.3,
    "shift_px": 4.0,
    "elastic_sigma_px": 3.0,
}
GREY = {"grey_offset": 0.2, "grey_gain": 0.3, "noise_sigma": 0.05}


def options(**changes):
    return SimpleNamespace(**{**OFF, **changes})


def batch(count=4, height=32, width=32, channels=2):
    generator = np.random.default_rng(0)
    image = generator.random((count, height, width, channels), dtype=np.float32)
    label = generator.integers(0, 3, (count, height, width), dtype=np.uint8)
    return jnp.asarray(image), jnp.asarray(label)


def run(key=0, image=None, label=None, **changes):
    chosen = options(**changes)
    return jax.jit(lambda k, i, t: augment.augment(k, i, t, chosen)[:2])(
        jax.random.key(key), image, label
    )


def test_all_off_returns_the_inputs():
    image, label = batch()
    image_out, label_out, maps = augment.augment(jax.random.key(0), image, label, options())
    assert maps == {}
    assert image_out is image
    assert label_out is label


def test_shapes_types_and_range_stay():
    image, label = batch()
    image_out, label_out = run(0, image, label, **GEOMETRY, **GREY)
    chex.assert_equal_shape_prefix((image_out, label_out, image), 3)
    assert (image_out.dtype, label_out.dtype) == (jnp.float32, jnp.uint8)
    assert image_out.min() >= 0
    assert image_out.max() <= 1


def test_same_key_same_result_and_jit_changes_nothing():
    image, label = batch()
    first = run(3, image, label, **GEOMETRY, **GREY)
    chex.assert_trees_all_equal(first, run(3, image, label, **GEOMETRY, **GREY))
    plain = augment.augment(jax.random.key(3), image, label, options(**GEOMETRY, **GREY))
    chex.assert_trees_all_close(first[0], plain[0], atol=1e-4)
    assert np.mean(np.asarray(first[1] != plain[1])) < 0.01  # ties of the nearest pixel
    other = run(4, image, label, **GEOMETRY, **GREY)
    assert np.abs(np.asarray(first[0] - other[0])).max() > 0.1


def test_every_image_has_its_own_draws():
    image, label = batch(count=1)
    image, label = jnp.repeat(image, 6, 0), jnp.repeat(label, 6, 0)
    for switches in (SHIFT, ELASTIC, {"grey_offset": 0.2}):
        result = np.asarray(run(0, image, label, **switches)[0])
        assert len({item.tobytes() for item in result}) == 6, switches


def test_dihedral_gives_all_8_variants_with_the_label_aligned():
    plane = np.arange(16, dtype=np.float32).reshape(4, 4)
    count = 200
    image = jnp.tile(jnp.asarray(plane / 16)[None, :, :, None], (count, 1, 1, 1))
    label = jnp.tile(jnp.asarray(plane, jnp.int32)[None], (count, 1, 1))
    image_out, label_out = run(0, image, label, dihedral=True)
    np.testing.assert_array_equal(np.asarray(image_out)[..., 0] * 16, label_out)
    mirrored = plane[:, ::-1]
    expected = {np.rot90(p, k).astype(int).tobytes() for p in (plane, mirrored) for k in range(4)}
    found = [np.asarray(item).astype(int).tobytes() for item in label_out]
    assert set(found) == expected
    assert max(found.count(item) for item in expected) < 50  # 25 each on average


def test_dihedral_refuses_images_that_are_not_square():
    image, label = batch(height=16, width=32)
    with pytest.raises(UserError, match=r"augment\.dihedral needs square .* 16 x 32 px"):
        run(0, image, label, dihedral=True)


def test_whole_pixel_displacement_by_hand():
    image = jnp.asarray([[10.0, 20.0, 30.0, 40.0]])[None, ..., None]
    label = jnp.asarray([[[1, 2, 3, 4]]])
    field = jnp.zeros((1, 2, 1, 4)).at[:, 1].set(2.0)
    # positions 2, 3, 4, 5 of a row mirrored at the last pixel: 2, 3, 2, 1
    image_out, label_out = augment.resample(
        jnp.repeat(image, 2, 1), jnp.repeat(label, 2, 1), jnp.repeat(field, 2, 2)
    )
    np.testing.assert_allclose(image_out[0, 0, :, 0], [30, 40, 30, 20], atol=1e-4)
    np.testing.assert_array_equal(label_out[0, 1], [3, 4, 3, 2])


def test_half_pixel_displacement_is_the_mean_of_two_pixels():
    image = jnp.asarray([[0.0, 1.0], [2.0, 4.0]])[None, ..., None]
    label = jnp.zeros((1, 2, 2), jnp.int32)
    field = jnp.full((1, 2, 2, 2), 0.5)
    image_out, _ = augment.resample(image, label, field)
    assert image_out[0, 0, 0, 0] == pytest.approx((0 + 1 + 2 + 4) / 4)


def test_void_and_class_ids_are_never_mixed():
    image, label = batch(count=8)
    label = jnp.where(label == 1, 255, label)
    _, label_out = run(0, image, label, **GEOMETRY)
    assert set(np.unique(label_out)) == {0, 2, 255}


@pytest.mark.parametrize("switches", [SHIFT, ELASTIC, GEOMETRY])
def test_a_mark_moves_equally_in_image_and_label(switches):
    rows, columns = np.mgrid[:64, :64]
    blob = np.hypot(rows - 20, columns - 40) < 6
    label = jnp.tile(jnp.asarray(blob, jnp.int32)[None], (8, 1, 1))
    image_out, label_out = run(1, label[..., None].astype(jnp.float32), label, **switches)
    moved, apart = 0, []
    for plane, mask in zip(np.asarray(image_out)[..., 0], np.asarray(label_out), strict=True):
        image_center = np.array(ndimage.center_of_mass(plane))
        label_center = np.array(ndimage.center_of_mass(mask))
        apart.append(image_center - label_center)
        moved += np.abs(label_center - (20, 40)).max() > 0.75
    assert moved >= 5
    assert np.abs(apart).max() < 0.6  # a label moves by whole pixels
    assert np.abs(np.mean(apart, axis=0)).max() < 0.25


def test_shift_is_uniform_within_its_limit():
    field = np.asarray(augment.displacement(jax.random.key(0), (2000, 4, 4), options(shift_px=3.0)))
    assert np.ptp(field, axis=(2, 3)).max() == 0
    assert np.abs(field).max() <= 3
    assert field.std() == pytest.approx(3 / np.sqrt(3), rel=0.05)


def test_rotation_turns_about_the_center():
    """The field of an image is that of one angle; nothing moves at its center."""
    chosen = options(rotate_deg=30.0)
    field = np.asarray(augment.displacement(jax.random.key(0), (500, 5, 9), chosen))
    assert np.abs(field[:, :, 2, 4]).max() < 1e-6
    # 4 px right of the center: (y, x) = (-4 sin a, 4 (cos a - 1))
    angle = np.arcsin(field[:, 0, 2, 8] / -4)
    np.testing.assert_allclose(field[:, 1, 2, 8], 4 * (np.cos(angle) - 1), atol=1e-5)
    assert np.abs(np.rad2deg(angle)).max() <= 30
    assert np.rad2deg(angle).std() == pytest.approx(30 / np.sqrt(3), rel=0.1)


def test_scales_are_even_between_their_limits():
    """ln z is uniform; without an angle rows and columns are stretched alike about the center."""
    field = np.asarray(augment.displacement(jax.random.key(0), (2000, 5, 9), options(scale=0.25)))
    zoom = 1 + field[:, 1, 2, 8] / 4
    assert np.abs(field[:, :, 2, 4]).max() < 1e-6 and np.abs(field[:, 0, 2, 8]).max() < 1e-6
    np.testing.assert_allclose(1 + field[:, 0, 4, 4] / 2, zoom, atol=1e-5)
    assert 1 / 1.25 <= zoom.min() < 0.81 and 1.24 < zoom.max() <= 1.25
    assert np.log(zoom).std() == pytest.approx(np.log(1.25) / np.sqrt(3), rel=0.05)


def test_maps_move_with_the_image_and_are_not_recolored():
    image, label = batch(channels=1)
    maps = {"weight": image[..., 0], "other": 2 * image[..., 0]}
    key = jax.random.key(1)
    moved_image = augment.augment(key, image, label, options(**GEOMETRY))[0]
    found = augment.augment(key, image, label, options(**GEOMETRY, **GREY), maps)
    assert set(found[2]) == {"weight", "other"} and found[0].shape == image.shape
    np.testing.assert_allclose(found[2]["weight"], moved_image[..., 0], atol=1e-5)
    np.testing.assert_allclose(found[2]["other"], 2 * moved_image[..., 0], atol=1e-5)


def test_elastic_displacement_has_its_sigma_at_the_grid_points():
    chosen = options(elastic_sigma_px=10.0)
    field = np.asarray(augment.displacement(jax.random.key(0), (4000, 9, 13), chosen))
    for row in (0, 4, 8):
        for column in (0, 6, 12):
            assert field[..., row, column].std() == pytest.approx(10, rel=0.05)
            assert abs(field[..., row, column].mean()) < 0.5
    assert abs(np.corrcoef(field[:, 0, 0, 0], field[:, 1, 0, 0])[0, 1]) < 0.06


def test_elastic_interpolation_is_the_mirrored_cubic_spline():
    grid = np.random.default_rng(0).normal(size=(3, 3))
    ours = augment.spline_matrix(11) @ grid @ augment.spline_matrix(7).T
    places = np.meshgrid(np.linspace(0, 2, 11), np.linspace(0, 2, 7), indexing="ij")
    expected = ndimage.map_coordinates(grid, places, order=3, mode="mirror")
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_grey_values_by_their_formula():
    image = jnp.full((500, 4, 4, 1), 0.5)
    label = jnp.zeros((500, 4, 4), jnp.uint8)
    gained = np.asarray(run(0, image, label, grey_gain=0.4)[0])
    assert gained.min() >= 0.3 - 1e-6
    assert gained.max() <= 0.7 + 1e-6
    assert gained.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.1)
    offset = np.asarray(run(0, image, label, grey_offset=0.1)[0])
    assert np.ptp(offset, axis=(1, 2, 3)).max() == 0
    assert np.abs(offset - 0.5).max() <= 0.1 + 1e-6
    assert offset.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.1)
    noisy = np.asarray(run(0, image, label, noise_sigma=0.05)[0])
    assert (noisy - 0.5).std() == pytest.approx(0.05, rel=0.05)
