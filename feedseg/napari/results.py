"""Results as layers: (data, settings, kind) for `viewer.add_<kind>(data, **settings)`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from feedseg.io.colors import tints
from feedseg.napari.segmenting import Result

TRANSPARENT = (0.0, 0.0, 0.0, 0.0)
Layer = tuple[np.ndarray, dict[str, Any], str]


def layers(result: Result, name: str, model: str, place: dict[str, Any]) -> list[Layer]:
    """Layers from bottom to top. name: of the image layer; place: of `images.placement`."""
    origin = {"metadata": {"feedseg": {"model": model, "class_names": result.class_names}}}
    found: list[Layer] = []
    if result.uncertainty is not None:
        top = float(result.uncertainty.max()) or 1.0
        shown = {"colormap": "magma", "blending": "additive", "contrast_limits": (0, top)}
        found.append((result.uncertainty, {"name": f"{name}_uncertainty", **shown}, "image"))
    colormap = class_colormap(result.class_colors)
    features = class_features(result.class_names)
    settings = {"colormap": colormap, "features": features, "opacity": 0.4}
    found.append((result.labels, {"name": f"{name}_labels", **settings}, "labels"))
    if result.instances is not None:
        found.append((result.instances, {"name": f"{name}_instances"}, "labels"))
    return [(data, settings | origin | place, kind) for data, settings, kind in found]


def class_colormap(colors: Sequence[Sequence[int]]) -> dict[int | None, tuple[float, ...]]:
    """RGBA 0-1 by class id, None: any other value; a black class lets the image show.

    colors: RGB 0-255 of the classes, used as `colors.tints` of them.
    """
    table = {
        number: (*(float(part) / 255 for part in color), 1.0) if any(color) else TRANSPARENT
        for number, color in enumerate(tints(colors))
    }
    return {None: TRANSPARENT, **table}


def class_features(names: Sequence[str]) -> dict[str, list]:
    """The table by which napari shows a class name for a label in its status bar."""
    return {"index": list(range(len(names))), "class": list(names)}
