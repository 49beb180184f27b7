"""Receptive field of a network: the interval of input pixels behind an output pixel.

A step maps the first and last pixel on one axis of a layer's output to those of its input.
"""

from collections.abc import Callable, Iterable

Interval = tuple[int, int]
Step = Callable[[Interval], Interval]


def conv(size: int = 3, count: int = 1) -> Step:
    """`count` convolutions one after another, odd kernels, padding "same"."""
    side = count * (size // 2)
    return lambda pixels: (pixels[0] - side, pixels[1] + side)


def strided_conv(size: int) -> Step:
    """A convolution with stride 2 and padding (size - 1) / 2."""
    side = (size - 1) // 2
    return lambda pixels: (2 * pixels[0] - side, 2 * pixels[1] - side + size - 1)


def pool2(pixels: Interval) -> Interval:
    """2x2 pooling."""
    return 2 * pixels[0], 2 * pixels[1] + 1


def up_conv(size: int) -> Step:
    """A transposed convolution with stride 2, kernel 3x3 or 4x4, as in `layers.conv`."""
    return lambda pixels: ((pixels[0] - 1) // 2, (pixels[1] + size - 3) // 2)


def reach(steps: Iterable[Step], stride: int) -> int:
    """Largest distance in px between an output pixel and an input pixel behind it.

    steps: the layers on the way that reaches furthest, from the output back to the input. stride:
    product of the strides of the layers, after which distances repeat.
    """
    steps, largest = list(steps), 0
    for pixel in range(stride):
        first, last = pixel, pixel
        for step in steps:
            first, last = step((first, last))
        largest = max(largest, pixel - first, last - pixel)
    return largest
