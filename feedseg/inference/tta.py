"""Test-time augmentation by the 8 rotations and mirrors of a square, for NumPy and JAX arrays."""

from collections.abc import Callable, Iterator
from typing import Any

Array = Any


def orientations(apply: Callable[[Array], Array], image: Array) -> Iterator[Array]:
    """`g^-1 q(g x)` for the 8 elements g of the dihedral group; their mean is the augmented answer.

    apply: q, image [N, H, W, C] -> [N, H, W, K].
    """
    xp = image.__array_namespace__()
    for mirrored in (False, True):
        for turns in range(4):
            view = xp.rot90(image[:, :, ::-1] if mirrored else image, turns, axes=(1, 2))
            back = xp.rot90(apply(view), -turns, axes=(1, 2))
            yield back[:, :, ::-1] if mirrored else back
