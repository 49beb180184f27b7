"""Mouse liver: 50 cell images of 256x256 px with cytoplasm, membrane and nucleus."""

from pathlib import Path

import numpy as np

from feedseg.datasets.common import readers
from feedseg.datasets.common.dataset import RawData
from feedseg.io import images
from feedseg.runtime.errors import BadImage, UserError

FOLDERS = ("mouse_liver", "mouse")
CLASSES = ("cytoplasm", "membrane", "nucleus")
COLORS = ((0, 255, 0), (0, 0, 255), (255, 0, 0))
LICENCE = "Not public; the terms are those of the authors who share it"
CITATION = (
    "A. Imanishi et al., A novel morphological marker for the analysis of molecular activities at "
    "the single-cell level, Cell Structure and Function 43:129-140, 2018"
)
LAYOUT = (
    "images/ and labels/ with equal file names; labels hold class ids (0 cytoplasm, 1 membrane, "
    "2 nucleus) or colors (cytoplasm green, membrane blue, nucleus red)"
)
OBTAIN = (
    "The images are not public: ask the corresponding authors of the AEP paper (Automatic "
    "enhancement preprocessing, github.com/usagisukisuki/AEP), and put the files into images/ and "
    "labels/."
)
BORDER_CLASS = "membrane"
_EIGHT_FOLDS = dict(
    split=dict(scheme="rotate", folds=8, counts=(35, 5, 10)),
    data=dict(dihedral_copies=True),
)
PROTOCOLS = {
    "random": _EIGHT_FOLDS,
    "sections": _EIGHT_FOLDS,
    "paper": dict(train=dict(batch_size=10)),
    "aep": dict(split=dict(scheme="rotate", folds=5, counts=(35, 5, 10))),  # disjoint folds
}

TOLERANCE = 64  # gray levels a color may be off, as after a lossy copy


def load(root: Path, options) -> RawData:
    """Images with their truth.

    Raises UserError if files are missing or a label is neither class ids nor the three colors.
    """
    if not (root / "images").is_dir():
        raise UserError(f"{root}: no mouse liver data here; expected {LAYOUT}")
    return RawData(
        readers.sections_in(root / "images", root / "labels", options, _truth), CLASSES, COLORS
    )


def _truth(path: Path) -> np.ndarray:
    """Class ids [h, w] of a label file of ids or of colors."""
    pages = images.read_array(path)
    if pages.shape[-1] != 3 or (pages == pages[..., :1]).all():
        return readers.read_ids(path, len(CLASSES))
    if len(pages) != 1 or pages.dtype != np.uint8:
        raise BadImage(f"{path}: expected one 8-bit color image")
    return _ids_of_colors(pages[0], path)


def _ids_of_colors(label: np.ndarray, path: Path) -> np.ndarray:
    """Class ids [h, w] from RGB [h, w, 3], every channel within TOLERANCE of a class color."""
    distances = [np.abs(label.astype(np.int16) - color).max(axis=2) for color in COLORS]
    ids = np.argmin(distances, axis=0).astype(np.uint8)
    wrong = np.min(distances, axis=0) >= TOLERANCE
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise BadImage(
            f"{path}: {int(wrong.sum())} pixels are neither green (cytoplasm), blue (membrane) nor "
            f"red (nucleus), the first at x={x}, y={y} with RGB {tuple(label[y, x].tolist())}"
        )
    return ids
