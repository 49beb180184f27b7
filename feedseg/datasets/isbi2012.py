"""ISBI 2012 EM segmentation challenge: 30 sections of 512x512 px, membranes of Drosophila larva.

The challenge stores 0 for membrane and 255 for the rest; here class 1 is the membrane.
"""

from pathlib import Path

import numpy as np

from feedseg.datasets.common import pairing, readers
from feedseg.datasets.common.dataset import RawData, Section
from feedseg.datasets.common.pairing import shorten
from feedseg.io.images import read_label
from feedseg.runtime.errors import BadImage, UserError

FOLDERS = ("isbi2012_em", "isbi2012", "ISBI2012", "unet/data/membrane")
CLASSES = ("background", "membrane")
COLORS = ((0, 0, 0), (255, 255, 255))
LICENCE = (
    "Challenge terms: free for generating or testing non-commercial image segmentation software; "
    "publications must cite the papers below"
)
CITATION = (
    "A. Cardona et al., PLoS Biology 8(10): e1000502, 2010. "
    "I. Arganda-Carreras et al., Frontiers in Neuroanatomy 9:142, 2015"
)
LAYOUT = (
    "train-volume.tif and train-labels.tif with 30 pages each, or single sections in "
    "train/image/0.png ... 29.png and train/label/0.png ... 29.png; labels 0 = membrane, 255 = not"
)
OBTAIN = (
    "The challenge gives both TIFFs after registration "
    "(imagej.net/events/isbi-2012-segmentation-challenge). The same pixels lie as PNGs in "
    "data/membrane of github.com/zhixuhao/unet (commit b45af4d458437d8281cc218a07fd4380818ece4a): "
    "clone it into the data folder. No checksums of these files are known here, so they are not "
    "fetched."
)
BORDER_CLASS = "membrane"

MEMBRANE, OTHER = 0, 255  # gray values of train-labels.tif


def load(root: Path, options) -> RawData:
    """The sections in their order with their truth: 0 cell interior, 1 membrane.

    Raises UserError if a file is missing, page counts differ or a label is not 0 or 255.
    """
    if (root / "train" / "image").is_dir():
        return RawData(_from_pictures(root / "train", options), CLASSES, COLORS)
    images_path, labels_path = root / "train-volume.tif", root / "train-labels.tif"
    for path in (images_path, labels_path):
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected {LAYOUT}")
    images = readers.read_pages(images_path, options.channels)
    labels = _membranes(read_label(labels_path), labels_path)
    if len(images) != len(labels):
        raise UserError(f"{labels_path}: {len(labels)} pages, {images_path.name} has {len(images)}")
    sections = [
        readers.section(f"{index:02d}", image, label, labels_path)
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return RawData(sections, CLASSES, COLORS)


def _from_pictures(root: Path, options) -> list[Section]:
    """Sections from image/N.png and label/N.png in the order of their numbers."""
    files = pairing.pair_folders(root / "image", root / "label")
    pairing.require_complete(files, root)
    for pair in files.pairs:
        if not pair.name.isdigit():
            raise UserError(f"{pair.image}: its name is no number; expected {LAYOUT}")
    pairs = sorted(files.pairs, key=lambda pair: int(pair.name))
    pairs = [pair._replace(name=f"{int(pair.name):02d}") for pair in pairs]
    return readers.sections_of(
        pairs, options, lambda path: _membranes(readers.read_values(path), path)
    )


def _membranes(values: np.ndarray, path: Path) -> np.ndarray:
    """1 (uint8) where the challenge's label says membrane."""
    wrong = np.setdiff1d(values, [MEMBRANE, OTHER])
    if wrong.size:
        raise BadImage(f"{path}: label values {shorten(wrong)}; only 0 and 255 may occur")
    return (values == MEMBRANE).astype(np.uint8)
