"""Problems of a folder of images and labels, and remarks on it, for `feedseg check`."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common import label_map, pairing
from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.tools import split_plan
from feedseg.datasets.tools.scan import FolderScan
from feedseg.io.normalize import DIM
from feedseg.runtime.errors import UserError
from feedseg.runtime.notes import collected


class Diagnosis(NamedTuple):
    """Assessment of a scanned folder."""

    problems: list[str]  # training would fail or learn something wrong
    notes: list[str]  # worth knowing
    valid_ids: bool  # whether the label values are class ids
    split: str = ""  # the groups and parts that training makes


def diagnose(
    scan: FolderScan, num_named: int, mapped: bool, group: str = "", remarks: Sequence[str] = ()
) -> Diagnosis:
    """Problems and notes of a scan.

    num_named: number of named classes, 0 if none are; mapped: by a label map; group: pattern of
    images that belong together; remarks: on how files were read.
    """
    label_problems = _label_problems(scan, num_named, mapped)
    problems = [*scan.damaged, *_unmatched(scan), *label_problems, *_kind_problems(scan)]
    problems += _name_problems(scan)
    if not scan.files.pairs:
        problems.append(f"{scan.root}: no pair of an image and a label")
    notes = [*remarks, *_range_notes(scan), *_class_notes(scan), *_duplicates(scan)]
    if not mapped:
        notes += _instance_notes(scan)
    split = ""
    if scan.pairs:
        with collected() as texts:
            try:
                split = split_plan.describe(scan, group)
            except UserError as error:
                problems.append(f"{scan.root}: {error}")
        notes += texts
    return Diagnosis(problems, notes, not label_problems, split)


def _instance_notes(scan: FolderScan) -> list[str]:
    """Ids that look like those of single objects."""
    counts = [page.objects for page in scan.pages() if set(page.values) - {0, VOID}]
    remark = label_map.instances(counts)
    return [f"{remark} (--label-map)"] if remark else []


def _unmatched(scan: FolderScan) -> list[str]:
    """Files without a partner."""
    images, labels = scan.files.unmatched_images, scan.files.unmatched_labels
    return [
        *(f"{path}: image without a label of the same name" for path in images),
        *(f"{path}: label without an image of the same name" for path in labels),
    ]


def _label_problems(scan: FolderScan, num_named: int, mapped: bool) -> list[str]:
    """Label values that are no class ids, over all labels together."""
    values = np.array(sorted(scan.values()))
    problem = label_map.problem(values, num_named) if values.size else None
    if problem and mapped:
        problem = f"after data.label_map the {problem.split('; try')[0]}"
    return [f"{scan.root}: {problem}"] if problem else []


def _kind_problems(scan: FolderScan) -> list[str]:
    """Images that differ in pixel type or channels from most others."""
    kinds = Counter((pair.dtype, pair.channels) for pair in scan.pairs)
    if len(kinds) < 2:
        return []
    dtype, channels = kinds.most_common(1)[0][0]
    return [
        f"{stats.pair.image}: {stats.dtype} with {stats.channels} channel(s), most images are "
        f"{dtype} with {channels}; convert all images to one type"
        for stats in scan.pairs
        if (stats.dtype, stats.channels) != (dtype, channels)
    ]


def _name_problems(scan: FolderScan) -> list[str]:
    count = Counter(pair.name for pair in scan.files.pairs)
    return [f"{scan.root}: {n} pairs have the name {name}" for name, n in count.items() if n > 1]


def _duplicates(scan: FolderScan) -> list[str]:
    """Images that occur more than once, pixel for pixel."""
    groups = defaultdict(list)
    for stats in scan.pairs:
        for index, page in enumerate(stats.pages):
            name = stats.pair.image.name + (f" page {index + 1}" if len(stats.pages) > 1 else "")
            groups[page.image_hash].append((name, stats.pair.part, page.label_hash))
    return [_duplicate(group) for group in groups.values() if len(group) > 1]


def _duplicate(group: list[tuple[str, str, str]]) -> str:
    """One line about equal images, given as (name, part, hash of the label)."""
    line = f"{group[0][0]} is the same image as {pairing.shorten(name for name, *_ in group[1:])}"
    parts = sorted({part for _, part, _ in group})
    if len({label for *_, label in group}) > 1:
        line += ", but their labels differ: one of them is wrong"
    if len(parts) > 1:
        line += f", in {' and '.join(parts)}: scores will be too high"
    return line


def _range_notes(scan: FolderScan) -> list[str]:
    """Gray values that do not fill the range of their type; images of one value."""
    notes = []
    deep = [pair.high for pair in scan.pairs if pair.dtype == "uint16"]
    if deep and max(deep) < 65535 * DIM:
        notes.append(
            f"16-bit images only reach {max(deep)} of 65535, as a camera of {_bits(max(deep))} bit "
            "gives them: their percentiles become 0 and 1, the default for folders; "
            "data.normalization=dtype_range would make them nearly black"
        )
    if any(p.dtype == "float32" and (p.low < 0 or p.high > 1) for p in scan.pairs):
        notes.append(
            "floating-point images exceed the range 0 to 1: their percentiles become 0 and 1, the "
            "default for folders; data.normalization=dtype_range would clip them"
        )
    flat = [pair.pair.image.name for pair in scan.pairs if pair.low == pair.high]
    if flat:
        notes.append(f"constant images: {pairing.shorten(flat)}")
    return notes


def _bits(value: float) -> int:
    """Bits that hold a gray value, of those that cameras have."""
    return next(bits for bits in (8, 10, 12, 14, 16) if value < 2**bits)


def _class_notes(scan: FolderScan) -> list[str]:
    """Rare classes."""
    total, notes = scan.values(), []
    labeled = sum(count for value, count in total.items() if value != VOID)
    rare = [v for v, n in total.items() if v != VOID and n < 0.01 * labeled]
    if rare and len(total) <= label_map.MOST_CLASSES and sorted(total) != [0, VOID]:
        notes.append(
            f"classes below 1 % of the pixels: {pairing.shorten(sorted(rare))}; "
            "consider --config.loss.class_weight=balanced"
        )
    return notes
