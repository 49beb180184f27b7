"""Instances of a segmented image on their way to a file of ids and a table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feedseg.inference.outputs import object_tables, run_lengths
from feedseg.inference.outputs.channel_maps import Planes
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.io.calibration import Calibration
from feedseg.io.writers import imagej


class InstanceMaps:
    """Ids of the instances of every page, from label maps that come by slabs of rows.

    A page is held in memory, see `InstanceSpec.check_memory`; the ids are kept on the disk beside
    `path` until they are written. shape: (P, H, W).
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], rule: InstanceSpec, class_names):
        self._shape, self._rule, self._names = shape, rule, class_names
        rule.check_memory(*shape[1:])
        self._planes = Planes(path, shape, 1, np.uint32)
        self._page = np.zeros(shape[1:], np.uint8)
        self._row = 0
        self._parts: list[run_lengths.Components] = []

    def __enter__(self) -> "InstanceMaps":
        return self

    def __exit__(self, *_) -> None:
        self._planes.__exit__()

    def add(self, labels: np.ndarray) -> None:
        """The next rows of a page, [h, W] uint8 class ids."""
        self._page[self._row : self._row + len(labels)] = labels
        self._row += len(labels)
        if self._row == self._shape[1]:
            ids = self._rule.find(self._page, self._names)
            self._parts.append(parts_of(ids))
            self._planes.add(ids[..., None])
            self._row = 0

    def write(self, paths: tuple[Path, Path], calibration: Calibration | None, axes) -> None:
        """The ids as TIFF, 16-bit where they fit, else 32-bit, and the table as CSV.

        axes: of the pages, as `page_axes` gives them.
        Raises SaveFailed if one cannot be written.
        """
        ids, table = paths
        most = max(len(parts.area) for parts in self._parts)
        imagej.write_instances(ids, self._planes.slabs(), calibration, self._shape, most, axes)
        one = run_lengths.Components(0, 1, 0, 0, 0, 1, 1, 0)
        columns = list(self._row_of(1, 1, one, calibration))
        object_tables.write_csv(table, columns, self._rows(calibration))

    def _rows(self, calibration: Calibration | None) -> Iterator[dict]:
        for page, parts in enumerate(self._parts, 1):
            for number, values in enumerate(zip(*parts, strict=True), 1):
                yield self._row_of(
                    page, number, run_lengths.Components(*map(int, values)), calibration
                )

    def _row_of(self, page: int, number: int, part: run_lengths.Components, calibration) -> dict:
        shape = object_tables.shape(part, *self._shape[1:], calibration)
        return {"page": page, "instance": number, **shape}


def parts_of(ids: np.ndarray) -> run_lengths.Components:
    """Size and place of the instances 1..n of a page [H, W], in this order."""
    starts, stops = run_lengths.find(ids)
    number = ids.ravel()[starts]
    kept = number > 0
    starts, stops, number = starts[kept], stops[kept], number[kept]
    if not len(number):
        return run_lengths.nothing()
    pieces = run_lengths.pieces(starts, stops, np.zeros_like(number), ids.shape[1], 0)
    return run_lengths.joined(pieces, number - 1)
