"""Grey values of a user's label images to class ids: what is valid, what to propose, how to apply.

Valid labels hold class ids 0, 1, ... K-1 and, where a pixel does not count, 255.
"""

import re
from collections.abc import Sequence

import numpy as np

from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.common.pairing import shorten
from feedseg.runtime.errors import UserError

MOST_CLASSES = 32  # more ids than this are taken for instance ids
FEW = 16  # up to this many values each one is mapped by itself

Rule = tuple[int, int, int]  # gray values from, up to and including, class id


def parse(text: str) -> list[Rule]:
    """Rules of a text such as `0:0,255:1` or, with ranges, `0-127:0,128-255:1`.

    Raises UserError for another form, ids above 255, or gray values named twice.
    """
    rules = []
    for item in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?:(\d+)", item)
        if not match or int(match[3]) > VOID:
            raise UserError(
                f"data.label_map: {item!r} is not value:id or from-to:id; write e.g. 0:0,255:1"
            )
        low = int(match[1])
        rules.append((low, int(match[2] or low), int(match[3])))
    for before, after in zip(sorted(rules), sorted(rules)[1:], strict=False):
        if after[0] <= before[1]:
            raise UserError(f"data.label_map: gray value {after[0]} is named twice")
    return rules


def apply(values: np.ndarray, rules: list[Rule]) -> np.ndarray:
    """Class ids (uint8) of gray values, same shape. Raises UserError for a value in no rule."""
    ids = np.zeros(values.shape, np.uint8)
    mapped = np.zeros(values.shape, bool)
    for low, high, class_id in rules:
        hit = (values >= low) & (values <= high)
        ids[hit] = class_id
        mapped |= hit
    if not mapped.all():
        raise UserError(f"values {shorten(unique(values[~mapped]))} are not in data.label_map")
    return ids


def unique(values: np.ndarray) -> list[int]:
    """The distinct values, rising."""
    return np.unique(values).tolist()


def problem(values: np.ndarray, num_classes: int = 0) -> str | None:
    """The problem with the values of a set of labels and a proposed map; None if they are valid.

    values: all (or the distinct) values of all labels. num_classes: number of named classes,
    0 if the number of classes follows from the ids.
    """
    distinct = unique(values)
    ids = [value for value in distinct if value != VOID]
    if distinct == [0, VOID]:
        return _refused("labels hold 0 and 255 instead of class ids", distinct)
    if len(ids) < 2:
        return f"labels hold only {shorten(distinct)}; at least two classes are needed"
    if num_classes:
        named = f"labels hold {shorten(distinct)}, but {num_classes} classes are named"
        return _refused(named, distinct) if ids[-1] >= num_classes else None
    if len(distinct) > MOST_CLASSES and _one_per_object(distinct):
        return _refused(
            f"labels hold {len(distinct)} ids, as if every object had its own id", distinct
        )
    if len(distinct) > MOST_CLASSES or len(ids) != ids[-1] + 1:
        kind = " (an interpolated mask?)" if len(distinct) > FEW else ""
        what = f"labels hold {shorten(distinct)}{kind} instead of consecutive ids from 0"
        return _refused(what, distinct)
    return None


def suggest(values: np.ndarray) -> str | None:
    """A map for `parse` that makes `values` valid; None if there is no obvious one.

    A few values are numbered in order, 255 stays void beside small ids. Many values up to 255 are
    thresholded at 128; instance ids become one class.
    """
    distinct = unique(values)
    ids = [value for value in distinct if value != VOID]
    if len(distinct) < 2:
        return None
    if len(distinct) <= FEW:
        keep_void = len(ids) >= 2 and ids[-1] < MOST_CLASSES
        numbered = {value: i for i, value in enumerate(ids if keep_void else distinct)}
        return ",".join(f"{value}:{numbered.get(value, VOID)}" for value in distinct)
    if _one_per_object(distinct):
        return f"0:0,1-{distinct[-1]}:1"
    return f"0-127:0,128-{VOID}:1" if distinct[-1] <= VOID else None


def _one_per_object(distinct: list[int]) -> bool:
    """Whether the values look like instance ids: consecutive from 0, not all gray values."""
    return distinct[0] == 0 and len(distinct) == distinct[-1] + 1 and distinct[-1] != VOID


def objects_of(label: np.ndarray) -> int:
    """How many ids from 1 on, each one connected part, a label [h, w] consists of; 0 if it does
    not, as classes do not, or is labeled in part, where a stroke of each class is one part.
    """
    from scipy import ndimage

    ids = [value for value in unique(label) if value != 0]
    if not ids or VOID in ids or ids != list(range(1, len(ids) + 1)) or len(ids) > MOST_CLASSES:
        return 0
    corners = np.ones((3, 3))
    whole = all(ndimage.label(label == value, corners)[1] == 1 for value in ids)
    return len(ids) if whole else 0


def instances(counts: Sequence[int]) -> str:
    """A remark where the ids look like those of single objects; empty if they do not.

    counts: `objects_of` each label that holds anything. Classes may lie in one part each, too, so
    their number has to differ between images or be large.
    """
    most = max(counts, default=0)
    if len(counts) < 2 or not all(counts) or most < 2 or (len(set(counts)) == 1 and most < 4):
        return ""
    return (
        f"every id from 1 to {most} is one connected part in each label, as if it were an object "
        f"and no class; if so, map them to one class: label map 0:0,1-{most}:1"
    )


def _refused(what: str, distinct: list[int]) -> str:
    proposed = suggest(np.asarray(distinct))
    remedy = f"--config.data.label_map={proposed}" if proposed else "save whole class ids 0, 1, ..."
    return f"{what}; try {remedy}" if proposed else f"{what}; {remedy}"
