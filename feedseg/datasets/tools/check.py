"""`feedseg check`: is a folder of images and labels fit for training, and if not, what to mend.

Reads every file, reports everything at once, and leaves a sheet of overlays and a fingerprint.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from feedseg.datasets import folder
from feedseg.datasets.common import label_map, pairing
from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.tools.diagnosis import Verdict, judge
from feedseg.datasets.tools.scan import Survey, survey
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import write_json_atomic
from feedseg.runtime.tables import aligned

SHEET_PAIRS = 12
MOST_LINES = 20  # of one kind of message


def check(
    data: Path,
    *,
    output: Path = Path("feedseg-check"),
    map_text: str = "",
    classes: Sequence[str] = (),
    progress: bool = True,
) -> int:
    """Reports on a user's folder; returns 0 if it can be trained on.

    output: folder for `overlay.png` and `fingerprint.json`, replaced if they exist.
    map_text: label values to class ids as in `data.label_map`. classes: names in order of ids.
    Raises UserError after the report if something has to be mended.
    """
    data, output = Path(data), Path(output)
    print(f"Checking {data}", flush=True)
    rules, described = label_map.parse(map_text), folder.describe(data, tuple(classes))
    found = pairing.find_pairs(data)
    if not found.layout:
        raise UserError(f"{data}: no images with labels found; expected {pairing.LAYOUT}")
    seen = survey(data, found, rules, described, SHEET_PAIRS, progress)
    verdict = judge(seen, len(described.names), bool(rules))
    names = described.names if verdict.valid_ids else ()  # names belong to ids, not grey values
    print("\n".join(report(seen, names, verdict)))
    files = _write(output, seen, names, verdict)
    print(f"\nWrote {', '.join(map(str, files))}", flush=True)
    if verdict.problems:
        more = len(verdict.problems) - 1
        others = f" (and {more} more, listed above)" if more else ""
        raise UserError(f"{verdict.problems[0]}{others}")
    print(f"{data} can be used: --config.data.name=folder --config.data_dir={data}")
    return 0


# Reporting


def report(seen: Survey, names: Sequence[str], verdict: Verdict) -> list[str]:
    """The report as lines of text, tables aligned."""
    parts = Counter(pair.part for pair in seen.found.pairs if pair.part)
    split = f" ({', '.join(f'{part} {n}' for part, n in parts.items())})" if parts else ""
    lines = [
        "",
        f"Layout  {seen.found.layout}",
        f"Pairs   {len(seen.found.pairs)}{split}, {sum(1 for _ in seen.pages())} readable images",
        "",
        *_limit(_image_table(seen)),
        "",
        *_limit(_class_table(seen, names)),
    ]
    for title, texts in (("To be mended", verdict.problems), ("Notes", verdict.notes)):
        if texts:
            lines += ["", f"{title} ({len(texts)})", *_limit([f"  - {text}" for text in texts])]
    return lines


def _limit(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    if more <= 0:
        return lines
    return [*lines[:MOST_LINES], f"  ... {more} more, all in fingerprint.json"]


def _image_table(seen: Survey) -> list[str]:
    groups = defaultdict(list)
    for f in seen.facts:
        groups[f.height, f.width, f.channels, f.dtype].append(f)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [["images", "height", "width", "channels", "type", "lowest", "highest"]]
    for (height, width, channels, dtype), group in ordered:
        low, high = min(f.low for f in group), max(f.high for f in group)
        count = sum(len(f.pages) for f in group)
        rows.append([count, height, width, channels, dtype, f"{low:g}", f"{high:g}"])
    return table(rows)


def _class_table(seen: Survey, names: Sequence[str]) -> list[str]:
    total = seen.values()
    holding = Counter(value for page in seen.pages() for value in page.values)
    pixels, pages = max(1, total.total()), sum(1 for _ in seen.pages())
    rows = [["value", "class", "pixels %", "in images"]]
    for value in sorted(total):
        share = f"{100 * total[value] / pixels:.3f}"
        rows.append([value, class_name(value, names), share, f"{holding[value]} of {pages}"])
    return table(rows)


def class_name(value: int, names: Sequence[str]) -> str:
    if value == VOID and names:
        return "(does not count)"
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


def _write(output: Path, seen: Survey, names: Sequence[str], verdict: Verdict) -> list[Path]:
    """The fingerprint and, if a pair could be read, the sheet. Raises UserError if it cannot."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be made ({error.strerror}); name another") from None
    files = [output / "fingerprint.json"]
    write_json_atomic(files[0], fingerprint(seen, names, verdict))
    if seen.samples:
        from feedseg.datasets.tools.overlay_sheet import draw_sheet

        files.insert(0, output / "overlay.png")
        draw_sheet(seen.samples, sorted(seen.values()), names, files[0])
    return files


def fingerprint(seen: Survey, names: Sequence[str], verdict: Verdict) -> dict:
    """All facts as plain data; `sha256` covers the pixels of all images and labels."""
    digest = hashlib.sha256()
    pairs = []
    for f in sorted(seen.facts, key=lambda f: f.pair.name):
        for page in f.pages:
            digest.update(f"{f.pair.name} {page.image_hash} {page.label_hash}\n".encode())
        pairs.append(
            {
                "name": f.pair.name,
                "image": str(_relative(f.pair.image, seen.root)),
                "label": str(_relative(f.pair.label, seen.root)),
                "part": f.pair.part,
                **{key: getattr(f, key) for key in ("height", "width", "channels", "dtype")},
                "range": [f.low, f.high],
                "pages": [page._asdict() for page in f.pages],
            }
        )
    total = sorted(seen.values().items())
    classes = [{"value": v, "name": class_name(v, names), "pixels": n} for v, n in total]
    return {
        "sha256": digest.hexdigest(),
        "layout": seen.found.layout,
        "classes": classes,
        "problems": verdict.problems,
        "notes": verdict.notes,
        "pairs": pairs,
    }


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
