"""DropBlock: dropout of squares of a feature map instead of single values."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.models.layers.shapes import check

Array = jax.Array


def seed_probability(keep: float, block: int, height: int, width: int) -> float:
    """`(1 - keep) / b^2 * H W / ((H - b + 1) (W - b + 1))`, the share of squares' centers."""
    places = (height - block + 1) * (width - block + 1)
    return min(1.0, (1 - keep) / block**2 * height * width / places)


def _spread(mask: Array, size: int, axis: int) -> Array:
    """Along one axis of length L, from squares' first pixels to all: length L + size - 1."""
    pad = [(0, 0)] * mask.ndim
    pad[axis] = (size - 1, size - 1)
    mask, covered = jnp.pad(mask, pad), 1
    while covered < size:
        step = min(covered, size - covered)
        length = mask.shape[axis] - step
        mask = jax.lax.slice_in_dim(mask, 0, length, axis=axis) | jax.lax.slice_in_dim(
            mask, step, length + step, axis=axis
        )
        covered += step
    return mask


def dropped(seeds: Array, block: int) -> Array:
    """Values inside a square, [N, H, W, C], of seeds [N, H - b + 1, W - b + 1, C].

    A seed stands for the square that begins at its place: all squares lie within the map.
    """
    return _spread(_spread(seeds, block, 1), block, 2)


def drops(keep: float, block: int, shape: tuple[int, ...]) -> bool:
    """Whether anything is dropped in training from a map [N, H, W, C]."""
    return keep < 1 and min(shape[1:3]) >= block


class DropBlock(nn.Module):
    """`y = x m numel(m) / sum(m)`, m = 0 in squares of b x b px and 1 elsewhere; training only.

    Every value that can be the center of a whole square is one with probability
    `(1 - keep) / b^2 * H W / ((H - b + 1) (W - b + 1))`, each channel for itself; the factor is
    that of the whole batch. A map lower or narrower than a square has no room for one: nothing is
    dropped. Should everything be dropped, the output is 0.
    Source: DropBlock (Ghiasi et al., 2018), Algorithm 1; the details are those of the code used by
    SA-UNet (clguo/SA-UNet, Dropblock.py).
    Raises ValueError unless 0 < keep <= 1 and the block is a positive odd number.
    """

    keep: float
    block: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        check("DropBlock", x=(x, "N H W C"))
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep}: choose a probability above 0, at most 1")
        if self.block < 1 or self.block % 2 == 0:
            raise ValueError(f"block={self.block}: choose an odd number of px")
        if not train or not drops(self.keep, self.block, x.shape):
            return x
        n, height, width, channels = x.shape
        probability = seed_probability(self.keep, self.block, height, width)
        room = (n, height - self.block + 1, width - self.block + 1, channels)
        seeds = jax.random.bernoulli(self.make_rng("dropout"), probability, room)
        kept = ~dropped(seeds, self.block)
        factor = kept.size / jnp.maximum(jnp.sum(kept, dtype=jnp.int32), 1)
        return jnp.where(kept, x * factor.astype(x.dtype), 0)
