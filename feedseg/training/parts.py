"""The validation and test part of a split, as items of one size.

Whole images are cut into tiles that overlap as those of `predict` do; a label counts in the one
tile that keeps its pixel and is void in the others. So the confusion matrices of an image's tiles
add up to that of the image.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common.dataset import VOID, Dataset
from feedseg.inference import tiling
from feedseg.runtime.rounding import round_up


class Part(NamedTuple):
    """Items of a data set, and for each the number of its image within the part."""

    dataset: Dataset
    index: np.ndarray
    images: np.ndarray

    def by_image(self, matrices: np.ndarray) -> np.ndarray:
        """Matrices [items, K, K] of the items, added up for each image."""
        total = np.zeros((self.images[-1] + 1, *matrices.shape[1:]), matrices.dtype)
        np.add.at(total, self.images, matrices)
        return total


def part(dataset: Dataset, index: np.ndarray, model) -> Part:
    """The items of a split as they are evaluated; model: the network, whose tiles they become.

    Images smaller than a tile are filled up with their mirror image, whose label is void.
    """
    if not dataset.crop:
        return Part(dataset, index, np.arange(len(index)))
    side = tile_side(dataset, model)
    by_item = [list(_tiles(dataset, item, side, model)) for item in index]
    pieces = [piece for group in by_item for piece in group]
    numbers = np.repeat(np.arange(len(index)), list(map(len, by_item)))
    items = np.asarray(index)[numbers]
    tiled = dataclasses.replace(
        dataset,
        images=np.stack([piece[0] for piece in pieces]),
        labels=np.stack([piece[1] for piece in pieces]),
        maps={name: np.stack([piece[2][name] for piece in pieces]) for name in dataset.maps},
        low=dataset.low[items],
        high=dataset.high[items],
        source_ids=dataset.source_ids[items],
        group_ids=dataset.group_ids[items],
        copy_ids=np.zeros(len(items), np.int32),
        item_names=tuple(dataset.item_names[item] for item in items),
        parts={},
        crop=0,
    )
    return Part(tiled, np.arange(len(items)), numbers)


def tile_side(dataset: Dataset, model) -> int:
    """Of the tiles of a data set of whole images, px: one for all, so that one program does."""
    if getattr(model, "whole_image", False):
        return dataset.crop
    largest = max(max(label.shape) for label in dataset.labels)
    automatic = tiling.automatic_tile(model.halo, model.stride)
    return min(round_up(largest, model.stride), automatic)


def pixels(dataset: Dataset, index: np.ndarray, model) -> int:
    """Pixels that the network sees in a part."""
    side = tile_side(dataset, model)
    return side**2 * sum(_count(dataset, item, side, model) for item in index)


def _layout(dataset: Dataset, item: int, side: int, model) -> tiling.Plan:
    height, width = (max(side, n) for n in dataset.labels[item].shape)
    if getattr(model, "whole_image", False):
        return tiling.windows(height, width, side)
    return tiling.plan(height, width, side, model.halo, model.stride)


def _count(dataset: Dataset, item: int, side: int, model) -> int:
    return _layout(dataset, item, side, model).num_tiles


def _tiles(dataset: Dataset, item: int, side: int, model):
    """Image, label and maps of each tile of an image."""
    layout = _layout(dataset, item, side, model)
    image, label = dataset.images[item], dataset.labels[item]
    height, width = label.shape
    rows, columns = (
        np.pad(np.arange(n), (0, padded - n), mode="symmetric")
        for n, padded in zip(label.shape, layout.padded, strict=True)
    )
    down, across = (_kept(spans, side, layout) for spans in (layout.rows, layout.columns))
    for row, own_rows in zip(layout.rows, down, strict=True):
        for column, own_columns in zip(layout.columns, across, strict=True):
            y, x = rows[row.start : row.start + side], columns[column.start : column.start + side]
            places = np.ix_(y, x)
            own = np.full((side, side), VOID, label.dtype)
            window = _slice(own_rows, row.start, height), _slice(own_columns, column.start, width)
            own[window] = label[places][window]
            maps = {name: values[item][places] for name, values in dataset.maps.items()}
            yield image[places], own, maps


def _slice(kept: tuple[int, int], start: int, most: int) -> slice:
    """Of a tile that begins at `start`, what it keeps of an image of `most` rows (or columns)."""
    return slice(kept[0] - start, max(kept[0], min(kept[1], most)) - start)


def _kept(spans, side: int, layout: tiling.Plan) -> list[tuple[int, int]]:
    """First row (or column) that each tile keeps, and one past the last.

    Of windows that are blended, up to the middle of what two share.
    """
    if not layout.overlap:
        return [(span.keep, span.stop) for span in spans]
    edges = [(a.start + side + b.start) // 2 for a, b in itertools.pairwise(spans)]
    return list(zip([0, *edges], [*edges, spans[-1].start + side], strict=True))
