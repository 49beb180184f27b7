"""`feedseg check`: whether a folder of images and labels can be trained on, and what to fix.

Reads every file, reports all problems at once, writes a sheet of overlays and a fingerprint.
"""

import hashlib
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from feedseg.datasets import folder
from feedseg.datasets.common import label_map, pairing
from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.tools import split_plan
from feedseg.datasets.tools.diagnosis import Diagnosis, diagnose
from feedseg.datasets.tools.scan import FolderScan, scan_folder
from feedseg.io.annotations import reading as annotations
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.runtime import console, escape, notes
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import write_json_atomic
from feedseg.runtime.output_lock import hold_folder
from feedseg.runtime.tables import aligned

SHEET_PAIRS = 12
MOST_LINES = 20  # of one kind of message


def check(
    data: Path,
    *,
    output: Path = Path("feedseg-check"),
    map_text: str = "",
    classes: Sequence[str] = (),
    group: str = "",
    how: ReadOptions = AS_STATED,
    progress: bool = True,
) -> int:
    """Report on a user's folder; returns 0 if it can be trained on.

    output: folder for `overlay.png` and `fingerprint.json`, replaced if they exist.
    map_text: label values to class ids as in `data.label_map`. classes: names in order of ids.
    group: pattern of images that belong together (`folder.grouping`). how: images are
    read (`feedseg.io.reading.ReadOptions`).
    Raises UserError after the report if there is a problem.
    """
    data, output = Path(data), Path(output)
    console.say(f"Checking {escape.visible(data)}")
    rules, described = label_map.parse(map_text), folder.describe(data, tuple(classes))
    how = how.checked()
    files = pairing.find_pairs(data, how.channel_files)
    how = how._replace(channel_files=files.channel_files)
    if not files.layout:
        drawn = pairing.files_below(data, annotations.SUFFIXES)
        hint = f"; shapes as in {drawn[0].name} become labels by --convert FOLDER" if drawn else ""
        raise UserError(f"{data}: no images with labels found{hint}; expected {pairing.LAYOUT}")
    with notes.collected() as remarks:
        scan = scan_folder(data, files, rules, described, SHEET_PAIRS, progress, how)
    diagnosis = diagnose(scan, len(described.names), bool(rules), group, remarks)
    names = _names(scan, described.names) if diagnosis.valid_ids else ()  # gray values have none
    console.say("\n".join(map(escape.visible, report(scan, names, diagnosis))))
    written = _write(output, scan, names, diagnosis)
    console.say(f"\nWrote {', '.join(map(str, written))}")
    if diagnosis.problems:
        more = len(diagnosis.problems) - 1
        others = f" (and {more} more, listed above)" if more else ""
        raise UserError(f"{diagnosis.problems[0]}{others}")
    options = [f"--config.split.group={group}"] if group else []
    options += [f"--config.data.label_map={map_text}"] if map_text else []
    options += [f"--config.data.{key}={value}" for key, value in how.keys().items()]
    command = ["feedseg", "train", "--config", split_plan.CONFIG, f"--config.data_dir={data}"]
    console.say(escape.visible(f"{data} can be used: {shlex.join([*command, *options])}"))
    return 0


# Reporting


def _names(scan: FolderScan, described: Sequence[str]) -> Sequence[str]:
    """Class names as training has them."""
    ids = [value for value in scan.values() if value != VOID]
    return described or folder.default_names(max(ids, default=-1) + 1)


def report(scan: FolderScan, names: Sequence[str], diagnosis: Diagnosis) -> list[str]:
    """The report as lines of text, tables aligned."""
    parts = Counter(pair.part for pair in scan.files.pairs if pair.part)
    split = f" ({', '.join(f'{part} {n}' for part, n in parts.items())})" if parts else ""
    lines = [
        "",
        f"Layout  {scan.files.layout}",
        f"Pairs   {len(scan.files.pairs)}{split}, {sum(1 for _ in scan.pages())} readable images",
        *([f"Split   {diagnosis.split}"] if diagnosis.split else []),
        *(_labeled(scan) if diagnosis.valid_ids else []),
        "",
        *_limit(_image_table(scan)),
        "",
        *_limit(_class_table(scan, names)),
    ]
    for title, texts in (("To be fixed", diagnosis.problems), ("Notes", diagnosis.notes)):
        if texts:
            lines += ["", f"{title} ({len(texts)})", *_limit([f"  - {text}" for text in texts])]
    return lines


def _labeled(scan: FolderScan) -> list[str]:
    """How much is labeled, where not all is."""
    total = scan.values()
    if not total[VOID]:
        return []
    share = 1 - total[VOID] / total.total()
    text = f"Labeled {100 * share:.3g} % of the pixels; the others ({VOID}, void) count nowhere"
    bare = sum(set(page.values) == {VOID} for page in scan.pages())
    return [text + (f"; {bare} image(s) without any are left out" if bare else "")]


def _limit(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    if more <= 0:
        return lines
    return [*lines[:MOST_LINES], f"  ... {more} more, all in fingerprint.json"]


def _image_table(scan: FolderScan) -> list[str]:
    groups = defaultdict(list)
    for pair in scan.pairs:
        groups[pair.height, pair.width, pair.channels, pair.dtype].append(pair)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [["images", "height", "width", "channels", "type", "lowest", "highest"]]
    for (height, width, channels, dtype), group in ordered:
        low, high = min(pair.low for pair in group), max(pair.high for pair in group)
        count = sum(len(pair.pages) for pair in group)
        rows.append([count, height, width, channels, dtype, f"{low:g}", f"{high:g}"])
    return table(rows)


def _class_table(scan: FolderScan, names: Sequence[str]) -> list[str]:
    total = scan.values()
    images_with = Counter(value for page in scan.pages() for value in page.values)
    pixels, pages = max(1, total.total()), sum(1 for _ in scan.pages())
    rows = [["value", "class", "pixels %", "in images"]]
    for value in sorted(total):
        share = f"{100 * total[value] / pixels:.3f}"
        rows.append([value, class_name(value, names), share, f"{images_with[value]} of {pages}"])
    return table(rows)


def class_name(value: int, names: Sequence[str]) -> str:
    if value == VOID and names:
        return "(ignored)"
    return names[value] if value < len(names) else "-"


def table(rows: Sequence[Sequence]) -> list[str]:
    """Rows as indented lines with aligned columns; columns of numbers are flush right."""
    columns = zip(*rows[1:], strict=True)
    align = "".join("r" if all(map(_numeric, column)) else "l" for column in columns)
    return [f"  {line}" for line in aligned(rows, align or "l")]


def _numeric(cell) -> bool:
    """Whether a cell is a number or `3 of 12`."""
    return re.sub(r" of |[.-]|e\+", "", str(cell)).isdigit()


# Files


def _write(
    output: Path, scan: FolderScan, names: Sequence[str], diagnosis: Diagnosis
) -> list[Path]:
    """Write the fingerprint and, if a pair is readable, the sheet."""
    files = [output / "fingerprint.json"]
    with hold_folder(output):
        write_json_atomic(files[0], fingerprint(scan, names, diagnosis))
        if scan.samples:
            from feedseg.datasets.tools.overlay_sheet import draw_sheet

            files.insert(0, output / "overlay.png")
            draw_sheet(scan.samples, sorted(scan.values()), names, files[0])
    return files


def fingerprint(scan: FolderScan, names: Sequence[str], diagnosis: Diagnosis) -> dict:
    """All facts as plain data; `sha256` covers the pixels of all images and labels."""
    digest = hashlib.sha256()
    pairs = []
    for stats in sorted(scan.pairs, key=lambda stats: stats.pair.name):
        pair = stats.pair
        for page in stats.pages:
            line = f"{pair.name} {page.image_hash} {page.label_hash}\n"
            digest.update(line.encode(errors="surrogateescape"))
        pairs.append(
            {
                "name": pair.name,
                "image": str(_relative(pair.image, scan.root)),
                "label": str(_relative(pair.label, scan.root)),
                "part": pair.part,
                **{key: getattr(stats, key) for key in ("height", "width", "channels", "dtype")},
                "range": [stats.low, stats.high],
                "pages": [page._asdict() for page in stats.pages],
            }
        )
    total = sorted(scan.values().items())
    classes = [{"value": v, "name": class_name(v, names), "pixels": n} for v, n in total]
    return {
        "sha256": digest.hexdigest(),
        "layout": scan.files.layout,
        "classes": classes,
        "problems": diagnosis.problems,
        "notes": diagnosis.notes,
        "pairs": pairs,
    }


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
