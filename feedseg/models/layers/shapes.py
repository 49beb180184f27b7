"""Shape checks at the entry of networks and layers, at trace time: compiled programs lack them."""

import string
from types import EllipsisType

import chex
import jax

Array = jax.Array


def check(where: str, **arrays: tuple[Array, str]) -> None:
    """Raises ValueError for an array without the expected axes.

        check("gate", g=(g, "N h w G"), x=(x, "N 2h 2w C"))

    An axis is a number; a name, which has one size in all arrays; or a multiple of a size that an
    earlier array has. A leading `...` stands for any axes. The message names the array, its shape
    and the expected axes with the sizes known by then.
    """
    sizes: dict[str, int] = {}
    for name, (x, text) in arrays.items():
        axes = text.split()
        try:
            chex.assert_shape(x, tuple(_size(axis, sizes) for axis in axes))
        except AssertionError:
            names = dict.fromkeys(axis.lstrip(string.digits) for axis in axes)
            known = [f"{axis} = {sizes[axis]}" for axis in names if axis in sizes]
            raise ValueError(
                f"{where}: {name} has shape {list(x.shape)}, expected [{', '.join(axes)}]"
                + (f" with {', '.join(known)}" if known else "")
            ) from None
        sizes |= {
            axis: size
            for axis, size in zip(reversed(axes), reversed(x.shape), strict=False)
            if axis.isidentifier()
        }


def _size(axis: str, sizes: dict[str, int]) -> int | EllipsisType | None:
    """What chex expects: a number, `...`, or None for any size."""
    if axis == "...":
        return ...
    name = axis.lstrip(string.digits)
    size = sizes.get(name) if name else 1
    return size and int(axis.removesuffix(name) or 1) * size


def check_image(image: Array, multiple: int) -> None:
    """Raises ValueError unless [N, H, W, C] has sides that are multiples of `multiple`."""
    check("network", image=(image, "N H W C"))
    check_sides(image, multiple)


def check_sides(image: Array, multiple: int) -> None:
    """Raises ValueError unless height and width are multiples of `multiple`."""
    height, width = image.shape[1:3]
    try:
        chex.assert_is_divisible(height, multiple)
        chex.assert_is_divisible(width, multiple)
    except AssertionError:
        near = " x ".join(
            str(max(multiple, round(side / multiple) * multiple)) for side in (height, width)
        )
        raise ValueError(
            f"image sides {height} x {width} must be multiples of {multiple}; nearest: {near}"
        ) from None
