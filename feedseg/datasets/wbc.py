"""White blood cells, rapid-stained smears: 300 RGB images of 88 to 120 px, 3 classes.

Images 001-200 and 201-300 differ in background color: an unshuffled split trains and tests on
different looks.
"""

from pathlib import Path

import numpy as np

from feedseg.datasets.common import pairing, readers
from feedseg.datasets.common.dataset import RawData
from feedseg.datasets.common.pairing import Pair, Pairs, shorten
from feedseg.runtime.errors import BadImage, UserError

FOLDERS = ("wbc_jtsc", "wbc", "segmentation_WBC", "segmentation_WBC-master")
CLASSES = ("background", "cytoplasm", "nucleus")
COLORS = ((0, 0, 0), (0, 255, 0), (255, 0, 0))
LICENCE = (
    "GPL-3.0 text in the source repository, which asks to acknowledge Jiangxi Tecom Science "
    "Corporation, China, and to cite the paper"
)
CITATION = (
    "X. Zheng, Y. Wang, G. Wang, J. Liu: Fast and robust segmentation of white blood cell images "
    "by self-supervised learning, Micron 107:55-71, 2018, doi:10.1016/j.micron.2018.01.010"
)
LAYOUT = (
    "images/*.png + labels/*.png (class ids 0, 1, 2) with equal names, or the source's own folder "
    "'Dataset 1' with 001.bmp (image) and 001.png (label 0/128/255)"
)
OBTAIN = (
    "Clone github.com/zxaoyou/segmentation_WBC (commit fa9c01622f52bccb9aeb8a6f2628f564e377767d) "
    "into the data folder. No checksums of its files are known here, so they are not fetched."
)
PREPARATION = dict(
    data=dict(crop_size=128),  # px; the images are 88 to 120 px wide, the rest is void
    split=dict(group_by_source=True),
)

SOURCE_VALUES = (0, 128, 255)  # background, cytoplasm, nucleus in the source's labels


def load(root: Path, options) -> RawData:
    """Images with their truth: 0 background and red cells, 1 cytoplasm, 2 nucleus.

    Raises UserError if files are missing or a label holds other values.
    """
    original = root / "Dataset 1" if (root / "Dataset 1").is_dir() else root
    if (root / "images").is_dir():
        files, truth = pairing.pair_folders(root / "images", root / "labels"), _ids
    elif any(original.glob("*.bmp")):
        files, truth = _original_pairs(original), _ids_of_source
    else:
        raise UserError(f"{root}: no white blood cell data here; expected {LAYOUT}")
    pairing.require_complete(files, root)
    return RawData(readers.sections_of(files.pairs, options, truth), CLASSES, COLORS)


def _original_pairs(folder: Path) -> Pairs:
    """x.bmp with x.png."""
    images = {path.stem: path for path in sorted(folder.glob("*.bmp"))}
    labels = {path.stem: path for path in sorted(folder.glob("*.png"))}
    return Pairs(
        "x.bmp + x.png",
        [Pair(stem, images[stem], labels[stem]) for stem in images if stem in labels],
        [path for stem, path in images.items() if stem not in labels],
        [path for stem, path in labels.items() if stem not in images],
    )


def _ids(path: Path) -> np.ndarray:
    return readers.read_ids(path, len(CLASSES))


def _ids_of_source(path: Path) -> np.ndarray:
    """Class ids [h, w] from the gray values 0, 128, 255."""
    values = readers.read_values(path)
    wrong = np.setdiff1d(values, SOURCE_VALUES)
    if wrong.size:
        raise BadImage(f"{path}: label values {shorten(wrong)}; expected 0, 128 and 255")
    return np.searchsorted(SOURCE_VALUES, values).astype(np.uint8)
