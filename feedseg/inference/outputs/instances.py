"""Instances of a label map: connected pixels of a class, or what a class separates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feedseg.inference.outputs.objects import check_connectivity
from feedseg.runtime import memory
from feedseg.runtime.errors import UserError

METHODS = ("components", "watershed")
_BYTES = {"components": 40, "watershed": 110}  # per pixel, at most


class InstanceSpec(NamedTuple):
    """Which instances of a segmented image are wanted, in names."""

    class_name: str
    separates: bool = False  # they are what the class separates, else the parts of the class
    method: str = "components"
    min_area_px: int = 0

    def check(self, class_names: Sequence[str]) -> None:
        """Raises UserError if the model has no such class."""
        if self.class_name not in class_names:
            raise UserError(
                f"instances of {self.class_name!r}: the model has the classes "
                f"{', '.join(class_names)}"
            )

    def check_memory(self, height: int, width: int) -> None:
        """Raises UserError if a page is too large for the memory of this machine."""
        need = _BYTES[self.method] * height * width
        have = memory.memory()
        if have and need > 0.9 * have:
            raise UserError(
                f"instances of a page of {width} x {height} px take about {need / 2**30:.0f} GiB, "
                f"this machine has {have / 2**30:.0f}; crop the image or leave them out"
            )

    def find(self, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Ids of the instances of a page, int32 [H, W], see `instances`."""
        class_id = class_names.index(self.class_name)
        which = {"boundary_class" if self.separates else "class_id": class_id}
        return instances(labels, method=self.method, min_area_px=self.min_area_px, **which)


def instances(
    labels: np.ndarray,
    class_id: int | None = None,
    *,
    method: str = "components",
    boundary_class: int | None = None,
    connectivity: int | None = None,
    min_area_px: int = 0,
    min_distance_px: int = 5,
    neck: float | None = None,
) -> np.ndarray:
    """Instance ids of a label map, int32 [H, W]: 1..n by first pixel in raster order, 0 elsewhere.

    labels: integer [H, W] class ids. The instances are parts of a class, `class_id`, or of
    everything that a class separates, `boundary_class` (cells between membranes); give one.
    method: `components`, connected pixels; `watershed` cuts these at their necks, where touching
    objects meet or a membrane has a gap: the watershed of -d, d the distance to the nearest pixel
    outside (px), from one seed per maximum of d. Two maxima are two objects if on every way
    from one to the other d falls below `neck` times the lower of them (an h-maximum of log d, so
    that it does not matter how large the objects are), and if they lie more than
    `min_distance_px` apart; of nearer ones the higher stays.
    neck: None: 0.75 for a class, 0.6 between boundaries, where shapes are less regular.
    connectivity: 4 or 8; None: 8 for a class, 4 between boundaries, which may be thin diagonals.
    min_area_px: smaller instances are left out.
    Raises UserError for options that cannot be. Takes about 100 bytes per pixel for a watershed.
    """
    if (class_id is None) == (boundary_class is None):
        raise UserError("instances: give the class they belong to or the one that separates them")
    if method not in METHODS:
        raise UserError(f"instances by {method!r}: choose one of {', '.join(METHODS)}")
    usual_neck, usual_connectivity = (0.75, 8) if boundary_class is None else (0.6, 4)
    neck = usual_neck if neck is None else neck
    connectivity = usual_connectivity if connectivity is None else connectivity
    check_connectivity(connectivity)
    if not 0 < neck < 1:
        raise UserError(f"neck {neck}: has to lie between 0 and 1")
    if min_distance_px < 1 or min_area_px < 0:
        raise UserError("instances: the distance has to be at least 1 px, the area at least 0")
    region = labels == class_id if boundary_class is None else labels != boundary_class
    from scipy import ndimage

    near = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    ids = ndimage.label(region, near)[0]
    if method == "watershed":
        ids = _watershed(region, ids, near, min_distance_px, neck)
    return _numbered(ids, min_area_px)


def _watershed(region, parts, near, min_distance_px: int, neck: float) -> np.ndarray:
    """The parts of `region` cut at their necks, int32 [H, W]."""
    from scipy.ndimage import distance_transform_edt
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    if region.all():  # nothing outside to measure the distance to
        return parts
    distance = distance_transform_edt(region)
    tops = _tops(distance, near, neck)
    seeds = peak_local_max(
        tops, labels=parts, min_distance=min_distance_px, p_norm=2, threshold_abs=0,
        exclude_border=False,
    )  # fmt: skip
    markers = np.zeros(region.shape, np.int32)
    markers[tuple(seeds.T)] = np.arange(1, len(seeds) + 1)
    return watershed(-distance, markers, connectivity=near, mask=region)


def _tops(distance: np.ndarray, near: np.ndarray, neck: float) -> np.ndarray:
    """`distance` at one pixel of each maximum that stands out by 1 / neck, 0 elsewhere."""
    from scipy import ndimage
    from skimage.morphology import local_maxima, reconstruction

    # Above 0 also when lowered, so that every part keeps a maximum.
    height = np.where(distance > 0, 1 + np.log(np.maximum(distance, 1) / neck), 0)
    lowered = reconstruction(height + np.log(neck), height, footprint=near)
    plateaus, count = ndimage.label(local_maxima(lowered, footprint=near), near)
    result = np.zeros_like(distance)
    if count:
        places = ndimage.maximum_position(distance, plateaus, np.arange(1, count + 1))
        result[tuple(np.transpose(places))] = distance[tuple(np.transpose(places))]
    return result


def _numbered(ids: np.ndarray, min_area_px: int) -> np.ndarray:
    """Ids renumbered 1..n by their first pixel in raster order, those of small areas 0."""
    area = np.bincount(ids.ravel())
    first = np.full(len(area), ids.size)
    first[ids.ravel()[::-1]] = np.arange(ids.size)[::-1]  # the last one assigned stays
    kept = np.flatnonzero(area >= max(min_area_px, 1))
    kept = kept[kept > 0]
    numbers = np.zeros(len(area), np.int32)
    numbers[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    return numbers[ids]
