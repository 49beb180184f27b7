"""`feedseg check --convert`: drawn shapes become a folder of images and class masks to train on.

Everything is read and drawn in a hidden folder beside the new one, which is renamed at the end: it
is there as a whole or not at all.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from feedseg.datasets import folder
from feedseg.datasets.common import pairing
from feedseg.datasets.common.dataset import VOID
from feedseg.datasets.common.pairing import shorten
from feedseg.datasets.tools import annotated_images, class_masks
from feedseg.datasets.tools.annotated_images import Drawn, Found
from feedseg.datasets.tools.class_masks import Mask
from feedseg.io.calibration import read_calibration
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.writers import imagej
from feedseg.io.writers.label_image import LabelImage
from feedseg.runtime import console, escape
from feedseg.runtime.allowed import Choice
from feedseg.runtime.errors import BadImage, UserError
from feedseg.runtime.files import require_folder, saving, write_json_atomic
from feedseg.runtime.output_lock import hold_file

UNLABELED = (class_masks.BACKGROUND, "void")


def convert(
    data: Path,
    output: Path,
    *,
    classes: Sequence[str] = (),
    unlabeled: str = UNLABELED[0],
    how: ReadOptions = AS_STATED,
    progress: bool = True,
) -> None:
    """Make `output`: images/, labels/ (8-bit ImageJ TIFF) and dataset.json with the class names.

    data: a folder with images and ImageJ ROIs, COCO, labelme or QuPath's GeoJSON files, also in
    train/, val/, test/. classes: names in the order of their ids; () takes those drawn, see
    `class_masks.class_names`. unlabeled: what pixels without a shape are, `background` (class 0) or
    `void` (255). how: images are read. Later shapes cover earlier ones, those of the class `ignore`
    (QuPath's `Ignore*`) are void. Images are linked, or copied where there are no hard links; those
    without an annotation file are left out.
    Raises UserError naming file and shape; `output` is not made then.
    """
    data, output = Path(data), Path(output)
    if problem := Choice(UNLABELED).problem(unlabeled, "unlabeled"):
        raise UserError(problem)
    _require_new(data, output)
    parts = pairing.part_folders(data)
    parts = parts if "train" in parts else {"": data}
    found = {part: annotated_images.find(root, how) for part, root in parts.items()}
    names = _class_names(data, found, classes, unlabeled == "void")
    with hold_file(output), saving(output):
        building = output.with_name(f".{output.name}.part")
        shutil.rmtree(building, ignore_errors=True)
        try:
            remarks = _build(building, found, names, bool(classes), unlabeled == "void", progress)
            if output.exists():
                output.rmdir()  # empty
            building.replace(output)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    console.say("\n".join(map(escape.visible, [*_summary(output, found, names), *remarks, ""])))


def _require_new(data: Path, output: Path) -> None:
    if not data.is_dir():
        raise UserError(f"{data}: no such folder")
    require_folder(output)
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output}: is not empty; choose a new folder, or remove it")
    if output.resolve().is_relative_to(data.resolve()):
        raise UserError(f"{output}: lies in {data}, which is read; choose a folder outside")


def _class_names(
    data: Path, found: dict[str, Found], given: Sequence[str], void: bool
) -> tuple[str, ...]:
    drawn = [each for part in found.values() for each in part.drawn]
    if not any(each.shapes for each in drawn):
        raise UserError(
            f"{data}: no shapes on images found; expected .roi, .zip (RoiSet), .json (COCO, "
            "labelme) or .geojson (QuPath) named after the images"
        )
    names = class_masks.class_names(drawn, given, void)
    if problem := folder.NAMES.problem(names, "classes"):
        raise UserError(f"{data}: {problem}")
    if len(set(names)) < len(names):
        raise UserError(f"{data}: class names repeat: {', '.join(names)}")
    return names


def _build(
    building: Path,
    found: dict[str, Found],
    names: tuple[str, ...],
    given: bool,
    void: bool,
    progress: bool,
) -> list[str]:
    """Write all files; returns remarks on the shapes."""
    from tqdm import tqdm

    listed = [(part, each) for part, inside in found.items() for each in inside.drawn]
    masks, has_void = [], void
    for part, each in tqdm(listed, "drawing", unit="image", disable=None if progress else True):
        mask = class_masks.draw(each, names, given, void)
        _write(building / part, each, mask, names)
        has_void |= bool((mask.labels == VOID).any())
        masks.append(mask._replace(labels=mask.labels[:0].copy()))
    labels = {name: number for number, name in enumerate(names)}
    description = {"labels": labels | ({"ignore": VOID} if has_void else {})}
    write_json_atomic(building / "dataset.json", description)
    return _remarks(masks)


def _write(root: Path, drawn: Drawn, mask: Mask, names: tuple[str, ...]) -> None:
    try:
        calibration = read_calibration(drawn.image)
    except BadImage:  # the image is read all the same
        calibration = None
    colors = folder.palette(len(names))
    label = root / "labels" / f"{drawn.key}.tif"
    imagej.write(label, LabelImage(mask.labels, names, colors, calibration))
    image = root / "images" / f"{drawn.key}{drawn.image.suffix}"
    image.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(drawn.image.resolve(), image)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(drawn.image, image)


def _summary(output: Path, found: dict[str, Found], names: tuple[str, ...]) -> list[str]:
    drawn = [each for part in found.values() for each in part.drawn]
    without = [path for part in found.values() for path in part.without]
    shapes = sum(len(each.shapes) for each in drawn)
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    lines = [f"Converted {shapes} shapes on {len(drawn)} image(s) to {output}: {numbered}"]
    if without:
        named = shorten(path.name for path in without)
        lines.append(f"  - {len(without)} image(s) without annotations left out: {named}")
    return lines


def _remarks(masks: list[Mask]) -> list[str]:
    """What was done to shapes, by how many and the first of them."""
    kinds = {
        "reach beyond their image and are clipped": [
            each for mask in masks for each in mask.clipped
        ],
        "fill no pixel": [each for mask in masks for each in mask.empty],
    }
    lines = [
        f"  - {len(shapes)} shape(s) {text}: {shorten(shapes)}"
        for text, shapes in kinds.items()
        if shapes
    ]
    if covered := sum(mask.covered for mask in masks):
        lines.append(f"  - {covered:,} px are covered by a later shape of another class")
    return lines
