"""iRPE: absorbance microscopy of human iRPE cells, 1032 crops of 256x256 px, membrane or not.

Two layouts. `{train,val,test}_{images,labels}_{fold}.npy` fix the parts of a fold, as the released
AEP code reads them; images/ + labels/ hold the crops, which the configuration then splits.
"""

from pathlib import Path

import numpy as np

from feedseg.datasets.common import readers
from feedseg.datasets.common.dataset import RawData, Section, apply_channels
from feedseg.io.images import read_array
from feedseg.runtime.errors import BadImage, UserError

FOLDERS = ("irpe", "iRPE", "iRPE_cell_dataset")
CLASSES = ("background", "membrane")
COLORS = ((0, 0, 0), (255, 255, 255))
LICENCE = "Provided by the National Institute of Standards and Technology (NIST); see its page"
CITATION = (
    "M. Majurski et al., Cell image segmentation using generative adversarial networks, transfer "
    "learning, and augmentations, CVPR Workshops 2019"
)
LAYOUT = (
    "train_images_0.npy, train_labels_0.npy, val_..., test_... (one set per fold, [N,1,256,256]), "
    "or images/ + labels/ with crops of equal names; label 255 or 1 = membrane, 0 = background"
)
OBTAIN = (
    "NIST publishes the images at isg.nist.gov/deepzoomweb/data/RPEimplants; cut them and their "
    "truth into 256x256 crops in images/ and labels/. The .npy files belong to "
    "github.com/usagisukisuki/AEP; ask its authors if they are not there."
)
BORDER_CLASS = "membrane"
PREPARATION = dict(split=dict(scheme="auto"))

PARTS = ("train", "val", "test")


def load(root: Path, options) -> RawData:
    """Crops with their truth, 1 for membrane.

    options.fold: number in the names of the .npy files; they also fix the parts.
    Raises UserError if a file is missing, damaged, or holds other labels than 0/1 or 0/255.
    """
    if any(root.glob("*_images_*.npy")):
        return _from_arrays(root, options)
    if not (root / "images").is_dir():
        raise UserError(f"{root}: no iRPE data here; expected {LAYOUT}")
    sections = readers.sections_in(
        root / "images", root / "labels", options, readers.read_foreground
    )
    return RawData(sections, CLASSES, COLORS)


def _from_arrays(root: Path, options) -> RawData:
    parts = {part: _part(root, part, options) for part in PARTS}
    return RawData(
        [section for sections in parts.values() for section in sections],
        CLASSES,
        COLORS,
        {part: [section.name for section in sections] for part, sections in parts.items()},
    )


def _part(root: Path, part: str, options) -> list[Section]:
    """Sections of train, val or test of one fold."""
    paths = [root / f"{part}_{kind}_{options.fold}.npy" for kind in ("images", "labels")]
    for path in paths:
        if not path.is_file():
            there = sorted(p.stem.rsplit("_", 1)[1] for p in root.glob("train_images_*.npy"))
            raise UserError(f"{path}: no such file; folds found: {', '.join(there) or 'none'}")
    images = apply_channels(_gray_values(_stack(paths[0]), paths[0]), options.channels)
    labels = readers.binary(_stack(paths[1])[..., 0], paths[1])
    if len(images) != len(labels):
        raise UserError(f"{paths[1]}: {len(labels)} labels, {paths[0].name} has {len(images)}")
    return [
        readers.section(f"{part}_{index:04d}", image, label, paths[1])
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _stack(path: Path) -> np.ndarray:
    """Array [N, h, w, 1] of a .npy file of [N, h, w], [N, 1, h, w] or [N, h, w, 1]."""
    array = read_array(path)
    if array.shape[3] != 1 and array.shape[1] == 1:
        array = np.moveaxis(array, 1, 3)
    if array.shape[3] != 1:
        raise BadImage(f"{path}: shape {array.shape}; expected [N,1,h,w] or [N,h,w]")
    return array


def _gray_values(images: np.ndarray, path: Path) -> np.ndarray:
    """Floating point images as uint8, from [0, 1] or from whole numbers up to 255.

    Deviation: the released code truncates `255 x`; rounding restores stored 8-bit values exactly.
    """
    if images.dtype != np.float32:
        return images
    if images.min() >= 0 and images.max() <= 1:
        return np.round(images * 255).astype(np.uint8)
    if images.min() >= 0 and images.max() <= 255 and (images == np.round(images)).all():
        return images.astype(np.uint8)
    raise BadImage(
        f"{path}: gray values from {images.min():g} to {images.max():g}; "
        "expected floating-point in [0, 1] or 8-bit values"
    )
