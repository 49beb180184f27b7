"""What is in a segmented image: areas per class and connected components.

`ComponentStats` takes a label map slab by slab. Every row of pixels is cut into runs of one class;
a run and the runs of its class that it touches in the row above are joined in a graph, and the
connected components of the graph are those of the image. Of the rows before a slab only the last
one is kept, with the sums over the components that reach it, so memory does not grow with the image
but with the components: 64 bytes for each one found.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.inference.outputs import object_tables, run_lengths
from feedseg.io.calibration import Calibration
from feedseg.runtime.errors import UserError

BLOCK_PX = 2**19  # rows are taken in blocks of so many pixels, whatever the slab


class Page(NamedTuple):
    """A page that was measured."""

    height: int  # px
    width: int
    area: np.ndarray  # px per class
    components: np.ndarray  # number per class, small ones and ignored classes too
    too_small: np.ndarray  # number per class below the smallest area
    objects: run_lengths.Components  # by class, then by first pixel


def check_connectivity(connectivity: int) -> None:
    """Raises UserError unless it is 4 or 8."""
    if connectivity not in (4, 8):
        raise UserError(f"connectivity {connectivity}: choose 4 (sides) or 8 (sides and corners)")


class ComponentStats:
    """Areas and connected components of label maps that come as slabs of rows.

        measure = Measure(class_names, calibration)
        for page in pages:
            for rows in page:  # uint8 [h, W], from the top
                measure.add(rows)
            measure.end_page()
        write_tables(object_tables.table_paths(stem), measure)

    The result does not depend on the heights of the slabs.
    class_names: of the class ids 0, 1, 2, ...; calibration: adds columns in its unit.
    connectivity: 8, pixels of a component touch at sides or corners, or 4, at sides only.
    ignore: class ids whose components are not listed as objects; None: class 0 where it is called
    background. min_area_px: smaller components are counted but not listed.
    Raises UserError for a connectivity, a class or an area that cannot be.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        calibration: Calibration | None = None,
        *,
        connectivity: int = 8,
        ignore: Sequence[int] | None = None,
        min_area_px: int = 0,
    ) -> None:
        check_connectivity(connectivity)
        self.class_names = tuple(class_names)
        self.calibration = calibration
        if ignore is None:
            ignore = (0,) if self.class_names[0].lower() == "background" else ()
        for class_id in ignore:
            _check_class(class_id, len(self.class_names))
        if min_area_px < 0:
            raise UserError(f"smallest area {min_area_px} px: must not be below 0")
        self._reach = 1 if connectivity == 8 else 0
        self._listed = ~np.isin(np.arange(len(self.class_names)), ignore)
        self._min_area = min_area_px
        self._pages: list[Page] = []
        self._begin_page()

    def _begin_page(self) -> None:
        self._height = 0
        self._last = None  # the last row seen, [1, W]
        self._open = run_lengths.nothing()  # components that touch it
        self._above = np.zeros(0, np.int64)  # component, by index into _open, of each of its runs
        self._found: list[run_lengths.Components] = []  # components that end above it
        self._area, self._components, self._too_small = np.zeros(
            (3, len(self.class_names)), np.int64
        )

    def add(self, rows: np.ndarray) -> None:
        """The next rows of the page, [h, W] uint8 class ids.

        Raises ValueError for another form, another width, or a value that is no class.
        """
        if rows.ndim != 2 or rows.dtype != np.uint8 or not rows.shape[1]:
            raise ValueError(f"rows have to be [h, W] uint8, not {rows.shape} {rows.dtype}")
        if self._last is not None and rows.shape[1] != self._last.shape[1]:
            raise ValueError(f"rows of {rows.shape[1]} px on a page {self._last.shape[1]} px wide")
        if rows.size and rows.max() >= len(self.class_names):
            raise ValueError(f"label {rows.max()}: there are {len(self.class_names)} classes")
        step = max(1, BLOCK_PX // rows.shape[1])
        for start in range(0, len(rows), step):
            self._add(rows[start : start + step])

    def _add(self, rows: np.ndarray) -> None:
        known = len(self._above)  # runs of the row above, whose pixels are counted already
        block = rows if self._last is None else np.concatenate([self._last, rows])
        starts, stops = run_lengths.find(block)
        classes = block.ravel()[starts]
        lower, upper = run_lengths.touching(starts, stops, classes, block.shape[1], self._reach)
        lower = np.concatenate([lower, np.arange(known)])
        upper = np.concatenate([upper, len(starts) + self._above])
        group = run_lengths.components(lower, upper, len(starts) + len(self._open.area))
        top = self._height - len(block) + len(rows)
        new = run_lengths.pieces(
            starts[known:], stops[known:], classes[known:], block.shape[1], top
        )
        self._area += np.bincount(new.class_id, new.area, len(self._area)).astype(np.int64)
        joined = run_lengths.joined(run_lengths.together([new, self._open]), group[known:])
        self._height += len(rows)
        self._last = block[-1:].copy()  # the caller may use its slab again
        at_last = group[np.searchsorted(starts, block.size - block.shape[1]) : len(starts)]
        still_open, self._above = np.unique(at_last, return_inverse=True)
        self._open = run_lengths.take(joined, still_open)
        self._finish(run_lengths.take(joined, joined.bottom < self._height))

    def _finish(self, whole: run_lengths.Components) -> None:
        """Counts whole components and keeps those to be listed."""
        classes, small = len(self.class_names), whole.area < self._min_area
        self._components += np.bincount(whole.class_id, minlength=classes)
        self._too_small += np.bincount(whole.class_id[small], minlength=classes)
        self._found.append(run_lengths.take(whole, self._listed[whole.class_id] & ~small))

    def end_page(self) -> None:
        """The page is complete. Raises ValueError if it has no rows."""
        if not self._height:
            raise ValueError("a page without rows")
        self._finish(self._open)
        objects = run_lengths.together(self._found)
        objects = run_lengths.take(objects, np.lexsort((objects.first, objects.class_id)))
        size = self._height, self._last.shape[1]
        self._pages.append(Page(*size, self._area, self._components, self._too_small, objects))
        self._begin_page()

    def classes(self) -> Iterator[dict]:
        """A row per page and class: page (from 1), class, class_name, area_px, fraction of the
        page, components (all of them), components_too_small (left out of `objects` for their
        area); calibrated images have the area in their unit too, e.g. area_um2.
        """
        for number, page in enumerate(self._finished_pages(), 1):
            for class_id, name in enumerate(self.class_names):
                area = int(page.area[class_id])
                yield {
                    "page": number,
                    "class": class_id,
                    "class_name": name,
                    **object_tables.area(area, self.calibration),
                    "fraction": area / (page.height * page.width),
                    "components": int(page.components[class_id]),
                    "components_too_small": int(page.too_small[class_id]),
                }

    def objects(self) -> Iterator[dict]:
        """A row per listed component, by page, class and first pixel in raster order.

        page, class, class_name; object: number within page and class from 1 (the id that
        `instances` gives it by method components); the other columns are those of
        `object_tables.shape`.
        """
        for number, page in enumerate(self._finished_pages(), 1):
            count = [0] * len(self.class_names)
            for values in zip(*page.objects, strict=True):
                part = run_lengths.Components(*map(int, values))
                count[part.class_id] += 1
                yield self._object(number, count[part.class_id], part, page.height, page.width)

    def object_columns(self) -> list[str]:
        """The keys of the rows of `objects`."""
        return list(self._object(1, 1, run_lengths.Components(0, 1, 0, 0, 0, 1, 1, 0), 1, 1))

    def _object(
        self, page: int, number: int, part: run_lengths.Components, height: int, width: int
    ) -> dict:
        return {
            "page": page,
            "class": part.class_id,
            "class_name": self.class_names[part.class_id],
            "object": number,
            **object_tables.shape(part, height, width, self.calibration),
        }

    def _finished_pages(self) -> list[Page]:
        if self._height or not self._pages:
            raise ValueError("no page was measured, or end_page() is missing after the last rows")
        return self._pages


def _check_class(class_id: int, count: int) -> None:
    if not 0 <= class_id < count:
        raise UserError(f"class {class_id}: there are the classes 0 to {count - 1}")


def write_tables(paths: tuple[Path, Path], measure: ComponentStats) -> None:
    """The rows of `ComponentStats.classes` and `ComponentStats.objects` as two CSV files.

    paths: see `object_tables.table_paths`. Each file appears when whole.
    Raises SaveFailed naming the file if it cannot be written.
    """
    classes, objects = paths
    object_tables.write_csv(objects, measure.object_columns(), measure.objects())
    rows = list(measure.classes())
    object_tables.write_csv(classes, list(rows[0]), rows)
