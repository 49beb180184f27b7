"""The two forms of a data set: sections as read from files, and the arrays of a run.

The file of a data set returns `RawData`, whole images as stored. `assemble` makes the `Dataset`:
degradation, filter, normalization limits per whole image, crops, dihedral copies, stacking.
"""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common import degrade, filters
from feedseg.io import normalize
from feedseg.runtime.errors import UserError
from feedseg.runtime.rounding import round_up

CONVERSIONS = ("as_is", "grey")  # of channels, see `apply_channels`
VOID = 255  # label of pixels excluded from the loss and all scores


class Section(NamedTuple):
    """One image with its truth."""

    name: str  # unique within the dataset, used in messages and file names
    image: np.ndarray  # [h, w, C] uint8, uint16 or float32
    label: np.ndarray  # [h, w] uint8 class ids, VOID where unknown
    maps: dict[str, np.ndarray] = {}  # [h, w] float32 by name, derived from the label
    group: str = ""  # sections of one group stay in one part of a split; empty: alone


class RawData(NamedTuple):
    """A data set as read: whole images before any preparation."""

    sections: list[Section]
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]  # RGB 0-255, one per class
    parts: dict[str, list[str]] = {}  # section names of train, val, test if the data set fixes them
    color: bool = True  # whether three channels are red, green and blue
    pixel_um: float | None = None  # side of a pixel, micrometers, where all images state one


@dataclass(frozen=True)
class Dataset:
    """Arrays of equal size, ready to be placed on the device, or whole images to draw crops from.

    images [N, H, W, C] raw gray values; labels [N, H, W] uint8, 255 void; of whole images, tuples
    of N arrays of their own sizes, and so the maps;
    crop: px, side of the crops that training draws; 0 of items of equal size;
    low, high [N] float32, or [N, C]: the raw values that become 0 and 1;
    source_ids [N] int32: items cut or copied from one image share an id;
    copy_ids [N] int32: 0 for the item itself, 1-7 for its dihedral copies;
    maps: per-pixel maps of the labels for the loss, [N, H, W] float32 by name;
    group_ids [N] int32: items of images that belong together, such as pages of one file, share an
    id; None: those of one image alone.
    """

    name: str
    images: np.ndarray | tuple[np.ndarray, ...]
    labels: np.ndarray | tuple[np.ndarray, ...]
    low: np.ndarray
    high: np.ndarray
    source_ids: np.ndarray
    copy_ids: np.ndarray
    item_names: tuple[str, ...]
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    parts: dict[str, list[int]] = field(default_factory=dict)  # source ids per fixed part
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    normalization: str = "dtype_range"  # `normalize.KINDS`, as it was applied
    pixel_um: float | None = None
    group_ids: np.ndarray | None = None
    crop: int = 0

    def __post_init__(self):
        if self.group_ids is None:
            object.__setattr__(self, "group_ids", self.source_ids)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_px(self) -> tuple[int, int]:
        """Height and width of what the network is trained on."""
        return (self.crop, self.crop) if self.crop else self.images.shape[1:3]

    @functools.cached_property
    def labeled(self) -> np.ndarray:
        """Whether any pixel of an item is labeled, [N] bool."""
        return np.asarray([(label != VOID).any() for label in self.labels])

    def fingerprint(self) -> str:
        """SHA-256 over pixels, truth, limits and groups: two equal fingerprints mean equal data."""
        digest = hashlib.sha256()
        arrays = [self.images, self.labels, self.low, self.high, self.source_ids]
        if not np.array_equal(self.group_ids, self.source_ids):
            arrays.append(self.group_ids)
        for each in arrays + [self.maps[name] for name in sorted(self.maps)]:
            for array in each if isinstance(each, tuple) else (each,):
                digest.update(repr((array.shape, str(array.dtype))).encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    def class_fractions(self) -> np.ndarray:
        """Fraction of the labeled pixels in each class, [K]."""
        counts = class_counts(self.labels, self.num_classes)
        return counts / max(1, counts.sum())


def class_counts(labels: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """Number of pixels of each class over all label images, int64 [K]."""
    counts = np.zeros(num_classes, np.int64)
    for label in labels:
        counts += np.bincount(label.ravel(), minlength=VOID + 1)[:num_classes]
    return counts


def apply_channels(image: np.ndarray, channels: str) -> np.ndarray:
    """`image` [..., h, w, C] as it is, or one gray channel [..., h, w, 1] of the same type.

    channels: `as_is` | `grey`. RGB becomes 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601 luma),
    rounded for integer types; a fourth channel (opacity) is dropped; gray stays gray.
    Raises UserError for another choice or a number of channels that has no gray value.
    """
    if channels == "as_is" or (channels == "grey" and image.shape[-1] == 1):
        return image
    if channels != "grey":
        raise UserError(f"data.channels={channels!r}: choose one of as_is, grey")
    if image.shape[-1] not in (3, 4):
        raise UserError(f"data.channels=grey: {image.shape[-1]} channels have no gray value")
    gray = image[..., :3] @ np.asarray([0.299, 0.587, 0.114], np.float64)
    if np.issubdtype(image.dtype, np.integer):
        gray = np.round(gray)
    return gray.astype(image.dtype)[..., None]


def grid_crops(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Top-left corners of crops of side `size` px, row by row, without overlap."""
    return [(y, x) for y in range(0, height, size) for x in range(0, width, size)]


def crop_side(sizes: Sequence[tuple[int, int]], asked: int) -> int:
    """Side of the crops of so few images that there would be less than one for each part, px.

    sizes: height and width of all labeled images; asked: `data.crop_size`, which is taken where it
    gives three crops or more, or none would.
    """
    largest = max(map(max, sizes), default=0)

    def crops(side: int) -> int:
        return sum(len(grid_crops(*size, side or largest)) for size in sizes)

    smaller = (round_up(-(-largest // parts), 16) for parts in (2, 3))
    return next((side for side in (asked, *smaller) if crops(side) >= 3), asked)


def pad_to(array: np.ndarray, height: int, width: int, **options) -> np.ndarray:
    """`array` [h, w, ...] with rows and columns added at the bottom and the right."""
    rest = [(0, 0)] * (array.ndim - 2)
    return np.pad(
        array, [(0, height - array.shape[0]), (0, width - array.shape[1]), *rest], **options
    )


def dihedral(array: np.ndarray, index: int) -> np.ndarray:
    """Copy 0-7 of a square [n, n, ...] array: `index % 4` quarter turns, mirrored from 4 on."""
    turned = np.rot90(array, index % 4)
    return turned[:, ::-1] if index >= 4 else turned


def _cut(section: Section, size: int) -> list[Section]:
    """Crops of one section; border crops are padded, image mirrored, label void. size 0: whole."""
    if not size:
        return [section]
    height, width = section.label.shape
    pieces = []
    for y, x in grid_crops(height, width, size):
        image = section.image[y : y + size, x : x + size]
        label = section.label[y : y + size, x : x + size]
        if label.shape != (size, size):
            image = pad_to(image, size, size, mode="symmetric")
            label = pad_to(label, size, size, constant_values=VOID)
        maps = {
            key: pad_to(values[y : y + size, x : x + size], size, size)
            for key, values in section.maps.items()
        }
        name = section.name if (height, width) == (size, size) else f"{section.name}_y{y}_x{x}"
        pieces.append(Section(name, image, label, maps))
    return pieces


def assemble(name: str, raw: RawData, options) -> Dataset:
    """The arrays of a dataset from its sections.

    options: the config's `data` part. Order: degrade, filter (both on whole 8-bit images),
    limits of the whole image, crops of `crop_size` px (0: one size for all, the largest,
    rounded up to 16 px), dihedral copies. For random crops images stay whole, or are cut into
    parts of `part_size` px where they are too few to be split.
    Raises UserError if there is no section or the sections disagree in type or channels.
    """
    _require_one_kind(name, raw.sections)
    whole = options.crops == "random"
    if whole and (options.dihedral_copies or not options.crop_size):
        key = "dihedral_copies=True" if options.dihedral_copies else "crop_size=0"
        raise UserError(f"data.{key} has no meaning with data.crops=random")
    largest = round_up(max(max(s.label.shape) for s in raw.sections), 16)
    size = options.get("part_size", 0) if whole else options.crop_size or largest
    stack = tuple if whole else np.stack
    channels = raw.sections[0].image.shape[2]
    color = raw.color and channels == 3
    normalization = normalize.resolved(options.normalization, channels, color)
    items, limits, source_ids, copy_ids = [], [], [], []
    for index, section in enumerate(raw.sections):
        image = degrade.apply(section.image, options.degrade, (options.degrade_seed, index))
        image = filters.apply(image, options.filter)
        bounds = normalize.limits(image, normalization, options.percentiles)
        for piece in _cut(section._replace(image=image), size):
            for copy in range(8 if options.dihedral_copies else 1):
                items.append(_dihedral_copy(piece, copy))
                limits.append(bounds)
                source_ids.append(index)
                copy_ids.append(copy)
    position = {section.name: index for index, section in enumerate(raw.sections)}
    low, high = (np.asarray(each, np.float32) for each in zip(*limits, strict=True))
    return Dataset(
        name=name,
        images=stack([item.image for item in items]),
        labels=stack([item.label for item in items]),
        low=low,
        high=high,
        source_ids=np.asarray(source_ids, np.int32),
        group_ids=_group_ids(raw.sections)[source_ids],
        copy_ids=np.asarray(copy_ids, np.int32),
        item_names=tuple(item.name for item in items),
        class_names=raw.class_names,
        class_colors=raw.class_colors,
        parts={part: [position[n] for n in members] for part, members in raw.parts.items()},
        maps={key: stack([item.maps[key] for item in items]) for key in items[0].maps},
        normalization=normalization,
        pixel_um=raw.pixel_um,
        crop=min(options.crop_size, size or largest) if whole else 0,
    )


def _group_ids(sections: list[Section]) -> np.ndarray:
    """For each section the index of the first one of its group, [n] int32."""
    first: dict[str, int] = {}
    ids = [first.setdefault(s.group, i) if s.group else i for i, s in enumerate(sections)]
    return np.asarray(ids, np.int32)


def _require_one_kind(name: str, sections: list[Section]) -> None:
    if not sections:
        raise UserError(f"dataset {name}: no images found")
    kinds = {(s.image.dtype, s.image.shape[2]) for s in sections}
    if len(kinds) > 1:
        raise UserError(
            f"dataset {name}: images differ in type or channels: {sorted(map(str, kinds))}"
        )


def _dihedral_copy(section: Section, index: int) -> Section:
    return Section(
        section.name + (f"_d{index}" if index else ""),
        dihedral(section.image, index),
        dihedral(section.label, index),
        {key: dihedral(values, index) for key, values in section.maps.items()},
    )
