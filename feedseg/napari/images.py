"""An image layer as a source of rows, so that a lazy array is never read as a whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feedseg.io.source import ImageSource
from feedseg.runtime.errors import BadImage

if TYPE_CHECKING:
    from napari.layers import Image

_PLACEMENT = ("scale", "translate", "rotate", "shear", "units", "axis_labels")


def source_of(layer: "Image") -> tuple[ImageSource, tuple[int, ...]]:
    """The pixels of a layer and the shape [..., H, W] of its labels.

    Every [H, W] of it is a page, in the order of the axes before; the last axis of an RGB layer is
    its channels, a fourth one its opacity. Of a layer of several resolutions it is the full one.
    Raises BadImage naming the layer for pixels that are no numbers and for an empty layer.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    name = Path(layer.name)
    if 0 in data.shape:
        raise BadImage(f"{name}: the layer is empty, its shape is {tuple(data.shape)}")
    channels = int(data.shape[-1]) if layer.rgb else 1
    shape = tuple(map(int, data.shape[:-1] if layer.rgb else data.shape))
    *before, height, width = shape

    def rows(page: int, start: int, stop: int) -> np.ndarray:
        place = map(int, np.unravel_index(page, before)) if before else ()
        pixels = np.asarray(data[(*place, slice(start, stop))])
        return pixels.reshape(stop - start, width, channels)

    pages = int(np.prod(before, dtype=np.int64))
    form = (pages, height, width, channels)
    return ImageSource(name, form, np.dtype(data.dtype), rows, alpha=channels == 4), shape


def placement(layer: "Image") -> dict[str, Any]:
    """Where a layer lies in the world, for one that is to lie on it: scale, units and so on."""
    place = {key: getattr(layer, key) for key in _PLACEMENT}
    return place | {"affine": np.array(layer.affine.affine_matrix)}
