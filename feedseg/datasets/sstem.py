"""Drosophila ventral nerve cord, serial-section TEM: 20 sections of 1024x1024 px, 4 classes.

Truth is read from the binary masks, or from labels/ by its documented gray values. The two differ:
the membrane masks include glia and extracellular space (gray value 159), labels/ lets one choose.
Class ids follow the Feedback U-Net paper: cytoplasm, membrane, mitochondria, synapse.
"""

import re
from pathlib import Path

import numpy as np

from feedseg.datasets.common import readers
from feedseg.datasets.common.dataset import RawData, Section
from feedseg.datasets.common.download import Download, manifest
from feedseg.datasets.common.pairing import shorten
from feedseg.io import images
from feedseg.runtime.errors import UserError

FOLDERS = (
    "sstem_vnc",
    "sstem",
    "groundtruth-drosophila-vnc",
    "groundtruth-drosophila-vnc-master",
    "stack1",
)
CLASSES = ("cytoplasm", "membrane", "mitochondria", "synapse")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
LICENCE = "Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported"
CITATION = (
    "S. Gerhard, J. Funke, J. Martel, A. Cardona, R. Fetter: Segmented anisotropic ssTEM dataset "
    "of neural tissue. figshare, 2013, doi:10.6084/m9.figshare.856713"
)
LAYOUT = (
    "stack1/raw/00.tif ... 19.tif with stack1/membranes/*.png, stack1/mitochondria/*.png, "
    "stack1/synapses/*.png (and stack1/labels/*.png for data.truth=labels), matched by number"
)
OBTAIN = "Run `feedseg fetch sstem`, or clone github.com/unidesigner/groundtruth-drosophila-vnc."
DOWNLOADS: tuple[Download, ...] = manifest("sstem")
BORDER_CLASS = "membrane"
_SECTIONS = dict(split=dict(scheme="rotate", folds=5, counts=(12, 3, 5)))
PROTOCOLS = {
    "random": dict(split=dict(scheme="random", counts=(192, 48, 80))),
    "sections": _SECTIONS,
    "aep": _SECTIONS,
}

# Gray values of labels/: 0-96 membrane by direction, 128 membrane junction, 159 glia and
# extracellular space, 191 mitochondria, 223 synapse, 255 intracellular.
LABEL_VALUES = {0: 1, 32: 1, 64: 1, 96: 1, 128: 1, 159: 0, 191: 2, 223: 3, 255: 0}
# Painted in this order, so a synapse wins over a mitochondrion and that over a membrane.
MASKS = (("membranes", 1), ("mitochondria", 2), ("synapses", 3))


def load(root: Path, options) -> RawData:
    """The sections in the order of their numbers.

    root: the folder that holds stack1/, or stack1/ itself. options.truth: `masks` | `labels`.
    Raises UserError if folders or files are missing or a label has an undocumented gray value.
    """
    stack = root / "stack1" if (root / "stack1").is_dir() else root
    if not (stack / "raw").is_dir():
        raise UserError(f"{root}: no sstem data here; expected {LAYOUT}")
    truth = readers.choose(options, "truth", ("masks", "labels"))
    folders = [name for name, _ in MASKS] if truth == "masks" else ["labels"]
    raw = _numbered(stack / "raw")
    parts = {name: _matching(stack / name, raw) for name in folders}
    sections = [
        _section(number, path, {name: files[number] for name, files in parts.items()}, options)
        for number, path in raw.items()
    ]
    return RawData(sections, CLASSES, COLORS)


def _section(number: int, raw: Path, truth: dict[str, Path], options) -> Section:
    image = readers.read_image(raw, options.channels)
    if "labels" in truth:
        label, path = _from_labels(truth["labels"]), truth["labels"]
        return readers.section(f"{number:02d}", image, label, path)
    label = np.zeros(image.shape[:2], np.uint8)
    for name, class_id in MASKS:
        mask = readers.read_mask(truth[name])
        readers.section(name, image, mask, truth[name])  # sizes agree
        label[mask] = class_id
    return Section(f"{number:02d}", image, label)


def _from_labels(path: Path) -> np.ndarray:
    """Class ids [h, w] from the gray values of a file of labels/."""
    values = readers.read_values(path)
    wrong = np.setdiff1d(values, list(LABEL_VALUES))
    if wrong.size:
        raise UserError(
            f"{path}: gray values {shorten(wrong)} are not among the documented "
            f"{', '.join(map(str, LABEL_VALUES))}"
        )
    table = np.zeros(256, np.uint8)
    table[list(LABEL_VALUES)] = list(LABEL_VALUES.values())
    return table[values]


def _numbered(folder: Path) -> dict[int, Path]:
    """Files of a folder by the number that ends their stem, in rising order."""
    files: dict[int, Path] = {}
    for path in images.list_images(folder):
        match = re.search(r"(\d+)$", path.stem)
        if not match:
            raise UserError(f"{path}: no number at the end of its name; expected {LAYOUT}")
        number = int(match[1])
        if number in files:
            raise UserError(f"{path}: has the same number as {files[number].name}; remove one")
        files[number] = path
    return dict(sorted(files.items()))


def _matching(folder: Path, raw: dict[int, Path]) -> dict[int, Path]:
    """Files of `folder` by number; every section of raw/ must have one and the reverse."""
    files = _numbered(folder)
    missing, extra = sorted(raw.keys() - files.keys()), sorted(files.keys() - raw.keys())
    if missing:
        raise UserError(f"{folder}: no file for the sections {shorten(missing)} of raw")
    if extra:
        raise UserError(f"{folder}: files {shorten(extra)} have no section in raw")
    return files
