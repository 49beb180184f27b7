"""The split that training makes of a folder, from what `feedseg check` has read of it."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from feedseg.datasets import folder
from feedseg.datasets.common import splits
from feedseg.datasets.common.dataset import VOID, crop_side, grid_crops
from feedseg.datasets.tools.scan import FolderScan
from feedseg.runs import config as configs

CONFIG = "unet:dataset=folder"  # whose split and crops are taken


class _Items(NamedTuple):
    """`splits.Items` of a scan: one for each crop; a page counts as labeled or not as a whole."""

    name: str
    source_ids: np.ndarray
    group_ids: np.ndarray
    copy_ids: np.ndarray
    labeled: np.ndarray
    parts: dict[str, list[int]]


def describe(scan: FolderScan, group: str = "") -> str:
    """Groups and images of each part. Raises UserError where training would."""
    group_of = folder.grouping(scan.root, [each.pair for each in scan.pairs], group)
    names = list(dict.fromkeys(group_of.values()))
    sources, groups, labeled = [], [], []
    parts: dict[str, list[int]] = {}
    page = 0
    sizes = [(e.height, e.width) for e in scan.pairs for p in e.pages if set(p.values) - {VOID}]
    config, _ = configs.parse_flags(["--config", CONFIG])
    config.split.group = group
    side = crop_side(sizes, config.data.crop_size)
    for each in scan.pairs:
        for stats in each.pages:
            crops = len(grid_crops(each.height, each.width, side))
            sources += [page] * crops
            groups += [names.index(group_of[each.pair])] * crops
            labeled += [bool(set(stats.values) - {VOID})] * crops
            if each.pair.part:
                parts.setdefault(each.pair.part, []).append(page)
            page += 1
    ids = [np.asarray(each) for each in (sources, groups)]
    items = _Items("folder", *ids, np.zeros(len(sources), int), np.asarray(labeled, bool), parts)
    found = splits.split(items, config.split)
    counts = Counter({part: len(np.unique(ids[0][at])) for part, at in found._asdict().items()})
    images = ", ".join(f"{part} {count}" for part, count in counts.items())
    by = "the parts that are given" if parts else f"{len(names)} groups of images"
    return f"{by}: {images} images"
