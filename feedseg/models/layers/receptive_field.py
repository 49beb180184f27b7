"""How far a network sees: the interval of input pixels behind an output pixel, layer by layer.

A step maps the first and last pixel on one axis of a layer's output to those of its input.
"""

from collections.abc import Callable, Iterable

from feedseg.runtime.rounding import round_up

Interval = tuple[int, int]
Step = Callable[[Interval], Interval]


def conv(size: int = 3, count: int = 1) -> Step:
    """`count` convolutions one after another, odd kernels, padding "same"."""
    side = count * (size // 2)
    return lambda seen: (seen[0] - side, seen[1] + side)


def strided_conv(size: int) -> Step:
    """A convolution with stride 2 and padding (size - 1) / 2."""
    side = (size - 1) // 2
    return lambda seen: (2 * seen[0] - side, 2 * seen[1] - side + size - 1)


def pool2(seen: Interval) -> Interval:
    """2x2 pooling."""
    return 2 * seen[0], 2 * seen[1] + 1


def up_conv(size: int) -> Step:
    """A transposed convolution with stride 2, kernel 3x3 or 4x4, as in `layers.conv`."""
    return lambda seen: ((seen[0] - 1) // 2, (seen[1] + size - 3) // 2)


def halo(steps: Iterable[Step], stride: int) -> int:
    """Largest distance in px between an output pixel and one behind it, rounded up to `stride`.

    steps: the layers on the way that reaches furthest, from the output back to the input.
    """
    steps, reach = list(steps), 0
    for pixel in range(stride):
        seen = pixel, pixel
        for step in steps:
            seen = step(seen)
        reach = max(reach, pixel - seen[0], seen[1] - pixel)
    return round_up(reach, stride)
