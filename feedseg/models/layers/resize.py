"""Up-sampling without weights: nearest pixel and bilinear, as PyTorch and Keras define them."""

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.models.layers.shapes import check

Array = jax.Array


def nearest2(x: Array) -> Array:
    """Every pixel of [N, H, W, C] four times: [N, 2H, 2W, C]."""
    check("nearest2", x=(x, "N H W C"))
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def bilinear_matrix(size: int, new_size: int, align_corners: bool) -> np.ndarray:
    """Weights [new_size, size] of linear interpolation along one axis; rows add up to 1.

    align_corners: output i lies at input `i (size - 1) / (new_size - 1)`, so that the outer pixels
    coincide; else at `(i + 1/2) size / new_size - 1/2`, held within the outer pixels.
    """
    i = np.arange(new_size)
    if align_corners:
        position = i * (size - 1) / max(1, new_size - 1)
    else:
        position = np.clip((i + 0.5) * size / new_size - 0.5, 0, size - 1)
    low = np.minimum(np.floor(position).astype(int), max(0, size - 2))
    matrix = np.zeros((new_size, size), np.float32)
    matrix[i, low] = 1 - (position - low)
    matrix[i, np.minimum(low + 1, size - 1)] += position - low
    return matrix


def bilinear(x: Array, height: int, width: int, *, align_corners: bool) -> Array:
    """[N, H, W, C] to [N, height, width, C], larger or equal, by linear interpolation along rows
    and columns (see `bilinear_matrix`).
    """
    check("bilinear", x=(x, "N H W C"))
    rows = jnp.asarray(bilinear_matrix(x.shape[1], height, align_corners), x.dtype)
    columns = jnp.asarray(bilinear_matrix(x.shape[2], width, align_corners), x.dtype)
    full = jax.lax.Precision.HIGHEST
    x = jnp.einsum("xj,nijc->nixc", columns, x, precision=full)
    return jnp.einsum("yi,nixc->nyxc", rows, x, precision=full)
