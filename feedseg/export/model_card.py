"""The picture on a model's card: its test image, the classes it gives, and both in one."""

import textwrap
from pathlib import Path

import numpy as np

from feedseg.datasets.tools.overlay_sheet import stretch
from feedseg.export.card import ModelCard
from feedseg.inference import model_file
from feedseg.io.colors import color_labels, overlay
from feedseg.io.style import drawing
from feedseg.runtime.errors import UserError

SUFFIXES = (".png", ".pdf", ".svg")
WIDTH = 7.2  # inches
COLUMN = 126  # characters of a line of the caption


def picture(model: Path, to: Path) -> Path:
    """Draws the test image of a model file, its labels and an overlay; returns `to`.

    Everything comes from the file: the image, the probabilities stored beside it, names and
    colors of the classes with their IoU, and the caption: scores, licences, citation, limits.
    Raises UserError for a damaged model or another kind of picture, SaveFailed if `to` cannot be
    written.
    """
    to = Path(to)
    if to.suffix.lower() not in SUFFIXES:
        raise UserError(f"{to}: a picture ends in {', '.join(SUFFIXES)}")
    content = model_file.read(model)
    image = stretch(content.test_input[0])
    labels = content.test_output[0].argmax(-1)
    colors = content.manifest["facts"]["class_colors"]
    panels = {
        f"example, {labels.shape[1]} × {labels.shape[0]} px": image,
        "classes": color_labels(labels, colors),
        "overlay": overlay(image, labels, colors),
    }
    text = caption(content.manifest)
    tall = WIDTH / 3 * labels.shape[0] / labels.shape[1]
    lines = 0.145 * (text.count("\n") + 1)
    to.parent.mkdir(parents=True, exist_ok=True)
    with drawing(WIDTH, 0.75 + tall + lines, to) as figure:
        figure.suptitle(model.name.partition(".")[0], x=0.01, ha="left", fontweight="bold")
        above, below = figure.subfigures(2, 1, height_ratios=(0.75 + tall, lines))
        for axes, (title, panel) in zip(above.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(panel, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(title, loc="left", fontsize=8)
        _legend(above, content.manifest)
        below.text(0.01, 1, text, va="top", fontsize=7.5, linespacing=1.35)
    return to


def caption(described: dict) -> str:
    """What model.json says about scores, licences, citation and limits, in lines of text."""
    card = ModelCard.of(described)
    about, final = card.card, card.scores.get("final", {})
    mean = final.get("miou")
    score = "" if mean is None else f"mean IoU {100 * mean:.1f} on its own test part. "
    parts = [
        about.get("description", ""),
        f"{score}Network {card.network['name']}, data {card.data or 'unnamed'}.",
        *(
            f"{key.replace('_', ' ').capitalize()}: {about[key]}"
            for key in _CAPTION
            if key in about
        ),
    ]
    return "\n".join(textwrap.fill(part, COLUMN) for part in parts if part)


_CAPTION = ("licence", "data_licence", "citation", "limits")


def _legend(figure, described: dict) -> None:
    """The classes in their colors, with their IoU where it is known."""
    from matplotlib.patches import Patch

    facts, final = described["facts"], described["scores"].get("final", {})
    patches = []
    for name, color in zip(facts["class_names"], facts["class_colors"], strict=True):
        score = final.get(f"iou/{name}")
        label = name if score is None else f"{name}, IoU {100 * score:.1f}"
        face = np.array(color) / 255
        patches.append(Patch(facecolor=face, edgecolor="#888888", linewidth=0.5, label=label))
    figure.legend(handles=patches, loc="outside lower left", ncols=min(4, len(patches)))
