"""Statistics of every image and label file of a folder, damaged ones too, for `feedseg check`."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common import label_map, pixel_size
from feedseg.datasets.common.pairing import Pair, Pairs
from feedseg.datasets.common.readers import read_labels
from feedseg.datasets.folder import Description, without_ignored
from feedseg.io.images import read_array, read_label
from feedseg.io.reading import AS_STATED, ReadOptions, label_options
from feedseg.runtime.errors import UserError


class PageStats(NamedTuple):
    """One image with its label."""

    image_hash: str  # SHA-256 of the pixels
    label_hash: str
    values: dict[int, int]  # label value -> pixels
    objects: int  # ids that are one connected part each, see `label_map.objects_of`


class PairStats(NamedTuple):
    """Statistics of an image file and its label file."""

    pair: Pair
    height: int  # px
    width: int
    channels: int
    dtype: str
    low: float  # smallest and largest gray value
    high: float
    pages: list[PageStats]


class Sample(NamedTuple):
    """Arrays of one page, to be drawn."""

    name: str
    image: np.ndarray  # [h, w, C]
    label: np.ndarray  # [h, w]


class FolderScan(NamedTuple):
    """All files below a folder."""

    root: Path
    files: Pairs
    pairs: list[PairStats]
    damaged: list[str]  # one line per unusable file or pair
    samples: list[Sample]
    remarks: list[str]  # on how files were read

    def values(self) -> Counter:
        """Pixels of each label value, over all labels."""
        total: Counter = Counter()
        for page in self.pages():
            total.update(page.values)
        return total

    def pages(self) -> Iterator[PageStats]:
        for pair in self.pairs:
            yield from pair.pages


def scan_folder(
    root: Path,
    files: Pairs,
    rules: list[label_map.Rule],
    described: Description,
    num_samples: int,
    progress: bool,
    how: ReadOptions = AS_STATED,
) -> FolderScan:
    """Read every pair of files, one at a time.

    rules: from label values to class ids, applied to every label; described: names and the value
    to ignore. num_samples: pages kept for drawing, spread evenly over the pairs.
    """
    from tqdm import tqdm

    most = max(1, num_samples // max(1, len(files.pairs)))  # samples per stack
    spread = np.linspace(0, len(files.pairs) - 1, num_samples).round()
    chosen = set(spread.astype(int).tolist())
    result = FolderScan(root, files, [], [], [], [])
    quiet = None if progress else True  # None: a bar on terminals only
    for index, pair in enumerate(tqdm(files.pairs, "reading", unit="pair", disable=quiet)):
        images, labels, errors = _read_pair(pair, rules, described.ignore, how)
        result.damaged.extend(errors)
        if errors:
            continue
        result.pairs.append(_pair_stats(pair, images, labels))
        if index in chosen:
            result.samples.extend(_samples(pair.name, images, labels, most))
    pixel_size.common(root, (stats.pair.image for stats in result.pairs), how)
    lonely = [(path, how) for path in files.unmatched_images]
    for path, options in lonely + [(path, label_options(how)) for path in files.unmatched_labels]:
        try:
            read_array(path, options)
        except UserError as error:
            result.damaged.append(str(error))
    return result


def _read_pair(pair: Pair, rules: list[label_map.Rule], ignore: int | None, how: ReadOptions):
    """(images [P, H, W, C], labels [P, H, W], errors); both files are read."""
    arrays, errors = [], []
    for read in (_read_image, _read_labels):
        try:
            arrays.append(read(pair, how, *arrays))
        except UserError as error:
            errors.append(str(error))
    if errors:
        return None, None, errors
    images, labels = arrays
    if images.shape[:3] != labels.shape:
        errors.append(
            f"{pair.label}: {_size(labels.shape)}, but its image is {_size(images.shape)} "
            "(pages x height x width); both must agree; if channels are taken for pages, name "
            "the axes: --axes CYX or YXC"
        )
    labels = labels if rules else without_ignored(labels, ignore)
    try:
        labels = label_map.apply(labels, rules) if rules else labels
    except UserError as error:
        errors.append(f"{pair.label}: {error}")
    return images, labels, errors


def _read_image(pair: Pair, how: ReadOptions) -> np.ndarray:
    return read_array(pair.image, how)


def _read_labels(pair: Pair, how: ReadOptions, *images: np.ndarray) -> np.ndarray:
    """Of the image, where it could be read."""
    if images:
        return read_labels(pair.label, how, len(images[0]))
    return read_label(pair.label, label_options(how))


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[:3]))


def _pair_stats(pair: Pair, images: np.ndarray, labels: np.ndarray) -> PairStats:
    pages = []
    for image, label in zip(images, labels, strict=True):
        values, counts = np.unique(label, return_counts=True)
        pixels = dict(zip(values.tolist(), counts.tolist(), strict=True))
        objects = label_map.objects_of(label)
        pages.append(PageStats(_hash(image), _hash(label), pixels, objects))
    _, height, width, channels = images.shape
    low, high = images.min().item(), images.max().item()
    return PairStats(pair, height, width, channels, str(images.dtype), low, high, pages)


def _hash(array: np.ndarray) -> str:
    """SHA-256 over shape, type and pixels."""
    digest = hashlib.sha256(repr((array.shape, str(array.dtype))).encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _samples(name: str, images: np.ndarray, labels: np.ndarray, most: int) -> list[Sample]:
    """Up to `most` pages, spread evenly over a stack; a single one is the middle page."""
    count = min(most, len(images))
    indices = (np.arange(count) + 0.5) * len(images) / count
    return [
        Sample(
            name + (f" page {i + 1}" if len(images) > 1 else ""), images[i].copy(), labels[i].copy()
        )
        for i in indices.astype(int).tolist()
    ]
