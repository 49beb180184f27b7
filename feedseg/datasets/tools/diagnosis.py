"""What is wrong with a surveyed folder, and what is only worth knowing, for `feedseg check`."""

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from feedseg.datasets.common import label_map, pairing
from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.tools.scan import Survey


class Verdict(NamedTuple):
    """What was judged of a survey."""

    problems: list[str]  # training would refuse the folder, or learn something wrong
    notes: list[str]  # worth knowing
    valid_ids: bool  # whether the label values are class ids


def judge(seen: Survey, num_named: int, mapped: bool) -> Verdict:
    """Problems and notes of a survey. num_named: named classes, 0 if none are named."""
    label_problems = _label_problems(seen, num_named, mapped)
    problems = [*seen.damaged, *_lonely(seen), *label_problems, *_kind_problems(seen)]
    problems += _name_problems(seen)
    if not seen.found.pairs:
        problems.append(f"{seen.root}: no pair of an image and a label")
    notes = [*_range_notes(seen), *_class_notes(seen), *_duplicates(seen)]
    return Verdict(problems, notes, not label_problems)


def _lonely(seen: Survey) -> list[str]:
    """Files without a partner."""
    found = seen.found
    lines = [f"{path}: image without a label of the same name" for path in found.unmatched_images]
    return lines + [
        f"{path}: label without an image of its name" for path in found.unmatched_labels
    ]


def _label_problems(seen: Survey, num_named: int, mapped: bool) -> list[str]:
    """Label values that are no class ids, judged over all labels together."""
    values = np.array(sorted(seen.values()))
    problem = label_map.problem(values, num_named) if values.size else None
    if problem and mapped:
        problem = f"after data.label_map the {problem.split('; try')[0]}"
    return [f"{seen.root}: {problem}"] if problem else []


def _kind_problems(seen: Survey) -> list[str]:
    """Images that differ in pixel type or channels from most others."""
    kinds = Counter((f.dtype, f.channels) for f in seen.facts)
    if len(kinds) < 2:
        return []
    dtype, channels = kinds.most_common(1)[0][0]
    return [
        f"{f.pair.image}: {f.dtype} with {f.channels} channel(s), most images are {dtype} with "
        f"{channels}; convert them alike"
        for f in seen.facts
        if (f.dtype, f.channels) != (dtype, channels)
    ]


def _name_problems(seen: Survey) -> list[str]:
    count = Counter(pair.name for pair in seen.found.pairs)
    return [f"{seen.root}: {n} pairs are called {name}" for name, n in count.items() if n > 1]


def _duplicates(seen: Survey) -> list[str]:
    """Images that occur more than once, pixel for pixel."""
    groups = defaultdict(list)
    for facts in seen.facts:
        for index, page in enumerate(facts.pages):
            place = facts.pair.image.name + (f" page {index + 1}" if len(facts.pages) > 1 else "")
            groups[page.image_hash].append((place, facts.pair.part, page.label_hash))
    return [_duplicate(group) for group in groups.values() if len(group) > 1]


def _duplicate(group: list[tuple[str, str, str]]) -> str:
    """One line about equal images, given as (place, part, hash of the label)."""
    line = f"{group[0][0]} is the same image as {pairing.shorten(place for place, *_ in group[1:])}"
    parts = sorted({part for _, part, _ in group})
    if len({label for *_, label in group}) > 1:
        line += ", but their labels differ: one of them is wrong"
    if len(parts) > 1:
        line += f", in {' and '.join(parts)}: scores will be too high"
    return line


def _range_notes(seen: Survey) -> list[str]:
    """Grey values that `dtype_range` would turn nearly black or clip."""
    notes = []
    deep = [f.high for f in seen.facts if f.dtype == "uint16"]
    if deep and max(deep) < 65535 / 8:
        notes.append(
            f"16-bit images only reach {max(deep)} of 65535 and would be nearly black: "
            "train with --config.data.normalization=image_percentile"
        )
    if any(f.dtype == "float32" and (f.low < 0 or f.high > 1) for f in seen.facts):
        notes.append(
            "floating point images leave 0 to 1 and would be clipped: "
            "train with --config.data.normalization=image_percentile"
        )
    flat = [f.pair.image.name for f in seen.facts if f.low == f.high]
    if flat:
        notes.append(f"images of one grey value: {pairing.shorten(flat)}")
    return notes


def _class_notes(seen: Survey) -> list[str]:
    """Rare classes, and too few images to split."""
    total, notes = seen.values(), []
    labelled = sum(count for value, count in total.items() if value != VOID)
    rare = [v for v, n in total.items() if v != VOID and n < 0.01 * labelled]
    if rare and len(total) <= label_map.MOST_CLASSES and sorted(total) != [0, VOID]:
        notes.append(
            f"classes below 1 % of the pixels: {pairing.shorten(sorted(rare))}; "
            "consider --config.loss.class_weight=balanced"
        )
    pages = sum(1 for _ in seen.pages())
    if 0 < pages < 3:
        notes.append(f"{pages} labelled image(s): training, validation and test need one each")
    return notes
