"""NIST 16-bit transmitted-light images of cell sheets and colonies, 256x256 px, cells or not.

The gray values fill only part of 16 bits, a different part in every image: train with
data.normalization=image_percentile.
"""

from pathlib import Path

from feedseg.datasets.common import readers
from feedseg.datasets.common.dataset import RawData
from feedseg.runtime.errors import UserError

FOLDERS = ("nist_phase16", "semantic-segmentation-unet/data", "semantic-segmentation-unet")
CLASSES = ("background", "cells")
COLORS = ((0, 0, 0), (255, 255, 255))
LICENCE = (
    "NIST public software licence; no separate licence is given for the sample data. Works of NIST "
    "employees are not subject to copyright in the United States"
)
CITATION = "NIST, M. Majurski, semantic-segmentation-unet, github.com/usnistgov"
LAYOUT = "images/*.tif (uint16) + labels/ or masks/ with equal names (0/1 or 0/255)"
OBTAIN = (
    "Clone github.com/usnistgov/semantic-segmentation-unet (commit "
    "6c32132d6b641a33f968ee1aa583a425806a1cc6) into the data folder; its data/ holds images/ and "
    "masks/. No checksums of its masks are known here, so they are not fetched."
)
PREPARATION = dict(data=dict(normalization="image_percentile"), split=dict(group_by_source=True))


def load(root: Path, options) -> RawData:
    """Images with their truth, 1 for cells. Raises UserError if files are missing or differ."""
    root = root / "data" if (root / "data" / "images").is_dir() else root
    if not (root / "images").is_dir():
        raise UserError(f"{root}: no NIST data here; expected {LAYOUT}")
    labels = root / "labels" if (root / "labels").is_dir() else root / "masks"
    sections = readers.sections_in(root / "images", labels, options, readers.read_foreground)
    return RawData(sections, CLASSES, COLORS)
