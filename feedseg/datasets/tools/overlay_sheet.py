"""A sheet of images, labels and outlines: wrong pairs and shifted labels are seen at a glance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.folder import palette
from feedseg.datasets.tools.scan import Sample
from feedseg.io.colors import VOID_COLOR, color_labels, composite, grey_as_rgb
from feedseg.io.style import drawing

SIDE = 420  # px of the longer side of a drawn image, at least half and at most twice that
MOST_COLORS = 24  # with more values neighbors get different colors, without a legend


def draw_sheet(
    samples: Sequence[Sample], values: Sequence[int], names: Sequence[str], path: Path
) -> None:
    """Image, label in colors, and image with the label's outlines, for every sample.

    values: all label values of the data set, rising; the n-th gets the n-th color, 255 is gray.
    Contrast is stretched for display (0.5 to 99.5 percentile).
    Raises SaveFailed if `path` cannot be written.
    """
    ordered = [value for value in values if value != VOID or len(values) <= 2]
    columns = 2 if len(samples) > 2 else 1
    rows = -(-len(samples) // columns)
    with drawing(6.3 * columns, 2.25 * rows + 0.5, path) as figure:
        axes = np.atleast_2d(figure.subplots(rows, 3 * columns, squeeze=False))
        for axis in axes.flat:
            axis.set_axis_off()
        for index, sample in enumerate(samples):
            row, column = divmod(index, columns)
            _draw(axes[row, 3 * column : 3 * column + 3], sample, ordered)
        _legend(figure, ordered, VOID in values and VOID not in ordered, names)


def _draw(axes, sample: Sample, ordered: Sequence[int]) -> None:
    """One sample in three axes."""
    image, label = fit(sample.image, sample.label, SIDE)
    ids = class_ids(label, ordered)
    colors = _colors(len(ordered))
    size = f"{sample.label.shape[0]}×{sample.label.shape[1]}"
    for axis, picture in zip(
        axes, (image, color_labels(ids, colors), outlines(image, ids, colors)), strict=True
    ):
        axis.imshow(picture, interpolation="antialiased")
    for axis, title in zip(
        axes, (_short(sample.name), f"label, {size} px", "outlines"), strict=True
    ):
        axis.set_title(title, loc="left", fontsize=8)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:12]}…{name[-15:]}"


def fit(image: np.ndarray, label: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image as RGB in [0, 1] and label, both enlarged or reduced by one whole factor.

    Large images are averaged over blocks, labels take one pixel of each block; small ones are
    repeated, so that outlines one pixel wide stay thin.
    """
    longest = max(label.shape)
    image = stretch(image)
    if longest >= 2 * side:
        factor = longest // side
        height, width = (n // factor * factor for n in label.shape)
        blocks = image[:height, :width].reshape(
            height // factor, factor, width // factor, factor, 3
        )
        start = factor // 2
        return blocks.mean((1, 3)), label[start:height:factor, start:width:factor]
    factor = max(1, side // longest)
    return tuple(array.repeat(factor, 0).repeat(factor, 1) for array in (image, label))


def stretch(image: np.ndarray) -> np.ndarray:
    """Image [h, w, C] as RGB [h, w, 3] in [0, 1], for display; stains as `colors.composite`."""
    if image.shape[2] not in (1, 3):
        return composite(image)
    low, high = np.percentile(image, (0.5, 99.5))
    unit = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    return unit if unit.shape[2] == 3 else grey_as_rgb(unit[..., 0])


def class_ids(label: np.ndarray, ordered: Sequence[int]) -> np.ndarray:
    """Place of every label value in `ordered`; -1 for values that are not in it."""
    place = np.searchsorted(ordered, label)
    place = np.minimum(place, len(ordered) - 1)
    return np.where(np.asarray(ordered)[place] == label, place, -1)


def outlines(image: np.ndarray, ids: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Image [h, w, 3] with a line inside every region but the first class's, in its color.

    A dark edge beside the line keeps it visible on any image.
    """
    from scipy.ndimage import binary_dilation
    from skimage.segmentation import find_boundaries

    region = ids != 0
    border = find_boundaries(ids, mode="inner", background=0) & region
    line = binary_dilation(border, iterations=2, mask=region)
    edge = binary_dilation(line)
    tint = color_labels(ids, colors) / 255
    tint = np.minimum(1, tint / np.maximum(tint.max(-1, keepdims=True), 0.5))  # as bright as can be
    dimmed = np.where(edge[..., None], 0.4 * image, image)
    return np.where(line[..., None], tint, dimmed)


def _colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colors of the first `count` values; many values repeat a short list of colors."""
    short = palette(min(count, MOST_COLORS))
    return tuple(short[i if i < len(short) else 1 + i % (len(short) - 1)] for i in range(count))


def _legend(figure, ordered: Sequence[int], void: bool, names: Sequence[str]) -> None:
    """Color patches of the values with their names; left out where there are too many."""
    from matplotlib.patches import Patch

    if len(ordered) > MOST_COLORS:
        return
    entries = [
        (f"{value} {names[value]}" if value < len(names) else str(value), color)
        for value, color in zip(ordered, _colors(len(ordered)), strict=True)
    ]
    entries += [(f"{VOID} does not count", VOID_COLOR)] if void else []
    patches = [
        Patch(facecolor=np.array(color) / 255, edgecolor="#888888", linewidth=0.5, label=text)
        for text, color in entries
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 8))
