"""Shapes of what enters a network or a layer, asserted while a program is traced: free at run time.

A wrong shape raises AssertionError with the name of the input, its shape and what is expected.
"""

import chex
import jax

Array = jax.Array


def check_image(image: Array, multiple: int) -> None:
    """The image of a network: [N, H, W, C].

    Raises ValueError, with the nearest size, unless H and W are multiples of `multiple`.
    """
    check_maps(image=image)
    height, width = image.shape[1:3]
    if height % multiple or width % multiple:
        near = " x ".join(
            str(max(multiple, round(side / multiple) * multiple)) for side in (height, width)
        )
        raise ValueError(
            f"image sides {height} x {width} must be multiples of {multiple}; nearest: {near}"
        )


def check_maps(**maps: Array) -> None:
    """Feature maps [N, H, W, C]."""
    for name, values in maps.items():
        chex.assert_rank(
            values, 4, custom_message=f"{name} has the shape {values.shape}, expected [N, H, W, C]"
        )


def check_same_size(**maps: Array) -> None:
    """Feature maps [N, H, W, any C] of equal N, H and W."""
    check_maps(**maps)
    shapes = ", ".join(f"{name} {values.shape}" for name, values in maps.items())
    chex.assert_equal_shape_prefix(
        list(maps.values()), 3, custom_message=f"{shapes}: N, H and W must be equal"
    )


def check_stack(**stacks: Array) -> None:
    """Stacks of maps or of pixels, [S, ..., K]."""
    for name, values in stacks.items():
        chex.assert_rank(
            values,
            {3, 4, 5},
            custom_message=f"{name} has the shape {values.shape}, expected [S, ..., K]",
        )
