"""Augmentation on the device: image and label changed together, every image by its own draws.

Each switch of the configuration (`augment.*`) that is 0 or False adds nothing to the program.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.scipy.ndimage import map_coordinates

from feedseg.runtime.errors import UserError

GRID_POINTS = 3  # the elastic displacements are drawn on a grid of 3 x 3 points


def augment(
    key: jax.Array, image: jax.Array, label: jax.Array, options, maps=None, moved: bool = False
):
    """One random variant of every image, its label and its maps: `(image, label, maps)`.

    image: [N, H, W, C] float32 in [0, 1]; label: [N, H, W] integer; key: one key for the batch;
    maps: by name, [N, H, W] float32, moved and interpolated like images.
    options: the config's `augment` part, static under jit. Order: dihedral, then rotation, scale,
    shift and elastic in one resampling, then gray values. With all switches off the inputs are
    returned. moved: the resampling was done where the images were cut out.
    Raises UserError if `dihedral` is on and the images are not square.
    """
    orientation, place, gray = jax.random.split(key, 3)
    names, channels = sorted(maps or {}), image.shape[-1]
    if names:  # they travel with the image as further channels
        image = jnp.concatenate([image, *(maps[name][..., None] for name in names)], -1)
    if options.dihedral:
        image, label = _dihedral(orientation, image, label)
    if moves(options) and not moved:
        field = displacement(place, label.shape, options)
        image, label = resample(image, label, field)
    moved_maps = {name: image[..., channels + i] for i, name in enumerate(names)}
    if names:
        image = image[..., :channels]
    if options.grey_offset or options.grey_gain or options.noise_sigma:
        image = _grey(gray, image, options)
    return image, label, moved_maps


def moves(options) -> bool:
    """Whether pixels take their values from between others."""
    return bool(options.rotate_deg or options.scale or options.shift_px or options.elastic_sigma_px)


def _dihedral(key, image, label):
    """One of the 8 rotations and mirrors of a square, each with probability 1/8."""
    height, width = label.shape[1:3]
    if height != width:
        raise UserError(
            f"augment.dihedral needs square images, these are {height} x {width} px: "
            "set augment.dihedral=False or cut squares with data.crop_size"
        )
    choices = jax.random.bernoulli(key, 0.5, (3, label.shape[0]))

    def turn(array):
        where = choices.reshape(choices.shape + (1,) * (array.ndim - 1))
        array = jnp.where(where[0], array[:, ::-1], array)
        array = jnp.where(where[1], array[:, :, ::-1], array)
        return jnp.where(where[2], jnp.swapaxes(array, 1, 2), array)

    return turn(image), turn(label)


def spline_matrix(size: int) -> np.ndarray:
    """Weights [size, 3] of the cubic spline through 3 points at pixels 0, (size-1)/2, size-1.

    The slope is 0 at both ends, which is what a spline mirrored at the border gives.
    """
    if size == 1:
        return np.eye(1, GRID_POINTS, dtype=np.float32)
    knots = np.linspace(0, size - 1, GRID_POINTS)
    spline = scipy.interpolate.CubicSpline(knots, np.eye(GRID_POINTS), bc_type="clamped")
    return spline(np.arange(size)).astype(np.float32)


def displacement(key, shape, options) -> jax.Array:
    """Where each pixel p of the result takes its value from, relative to itself: [N, 2, H, W] px.

        d = (z R(a) - 1)(p - c) + shift + Wy D Wx^T
        D ~ N(0, elastic_sigma_px^2) on 3 x 3 points, per axis
        shift ~ U(-shift_px, shift_px), per axis;  a ~ U(-rotate_deg, rotate_deg)
        ln z ~ U(-ln(1 + scale), ln(1 + scale)), so that objects become 1/z times as large

    shape: (N, H, W); c: the image's center. The grid spans the image corner to corner.
    Source: Ronneberger et al., U-Net (2015), section 3.1 (3 x 3 grid, sigma 10 px, bicubic).
    """
    count, height, width = shape
    shift_key, elastic_key = jax.random.split(key)
    field = jnp.zeros((count, 2, height, width), jnp.float32)
    if options.rotate_deg or options.scale:
        field = field + _turned(jax.random.fold_in(key, 2), shape, options)
    if options.shift_px:
        limit = options.shift_px
        shift = jax.random.uniform(shift_key, (count, 2, 1, 1), minval=-limit, maxval=limit)
        field = field + shift
    if options.elastic_sigma_px:
        grid_shape = (count, 2, GRID_POINTS, GRID_POINTS)
        grid = options.elastic_sigma_px * jax.random.normal(elastic_key, grid_shape)
        # full precision: the default of some accelerators is wrong by a tenth of a pixel
        field = field + jnp.einsum(
            "yi,naij,xj->nayx",
            spline_matrix(height),
            grid,
            spline_matrix(width),
            precision=jax.lax.Precision.HIGHEST,
        )
    return field


def _turned(key, shape, options) -> jax.Array:
    """`(z R(a) - 1)(p - c)` with one angle and one scale per image, [N, 2, H, W] px."""
    count, height, width = shape
    limit = jnp.deg2rad(options.rotate_deg)
    angle = jax.random.uniform(key, (count, 1, 1), minval=-limit, maxval=limit)
    y = jnp.arange(height)[:, None] - (height - 1) / 2
    x = jnp.arange(width) - (width - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if options.scale:
        most = jnp.log1p(options.scale)
        scale_key = jax.random.fold_in(key, 1)
        zoom = jnp.exp(jax.random.uniform(scale_key, angle.shape, minval=-most, maxval=most))
        cos, sin = zoom * cos, zoom * sin
    return jnp.stack([(cos - 1) * y - sin * x, sin * y + (cos - 1) * x], 1)


def resample(image, label, field):
    """`result[y, x] = input[y + field_y, x + field_x]`; outside, both inputs are mirrored.

    image: [N, H, W, C], linear interpolation; label: [N, H, W], nearest pixel (so no class
    appears that was not there); field: [N, 2, H, W] px. The mirror lies on the centers of the
    edge pixels.
    Deviation: elasticdeform interpolates the image with order 3.
    """
    height, width = label.shape[1:]
    start = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    positions = start + field

    def sample(plane, position, order):
        return map_coordinates(plane, tuple(position), order=order, mode="mirror")

    linear = jax.vmap(partial(sample, order=1), in_axes=(-1, None), out_axes=-1)
    nearest = partial(sample, order=0)
    return jax.vmap(linear)(image, positions), jax.vmap(nearest)(label, positions)


def _grey(key, image, options):
    """`clip(x (1 + gain) + offset + noise, 0, 1)`.

    gain, offset: uniform in +-grey_gain, +-grey_offset, one per image; noise: N(0, noise_sigma^2)
    per pixel and channel.
    """
    gain_key, offset_key, noise_key = jax.random.split(key, 3)
    each = (image.shape[0], 1, 1, 1)
    if options.grey_gain:
        limit = options.grey_gain
        image = image * (1 + jax.random.uniform(gain_key, each, minval=-limit, maxval=limit))
    if options.grey_offset:
        limit = options.grey_offset
        image = image + jax.random.uniform(offset_key, each, minval=-limit, maxval=limit)
    if options.noise_sigma:
        image = image + options.noise_sigma * jax.random.normal(noise_key, image.shape)
    return jnp.clip(image, 0.0, 1.0)
