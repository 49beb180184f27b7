"""What must be known of a model to apply it (`facts` in model.json, the metadata of ONNX files)."""

from feedseg.io import normalize
from feedseg.runtime.allowed import (
    Choice,
    Fields,
    Listed,
    Maybe,
    Number,
    Table,
    Text,
    above,
    at_least,
    whole,
)

MOST_CLASSES = 255  # ids of 8 bits, the last of which stands for none
MOST_CHANNELS = 1024
MOST_SIDE = 2**16  # px

NORMALIZATION = Choice(normalize.KINDS)
LIMITS = Listed(Number(), 2, 2)  # two percentiles, or two gray values
TRAINING_IMAGES = Fields(
    {},
    {
        "objects": Table(Listed(at_least(0), 3, 3), MOST_CLASSES),
        "pixel_um": Maybe(above(0)),
        "brightest": Number(),
    },
)
FACTS = Fields(
    {
        "class_names": Listed(Text(200, least=1), 2, MOST_CLASSES),
        "class_colors": Listed(Listed(whole(0, 255), 3, 3), 2, MOST_CLASSES),
        "channels": whole(1, MOST_CHANNELS),
        "normalization": NORMALIZATION,
        "percentiles": LIMITS,
    },
    {"training_images": Maybe(TRAINING_IMAGES), "size_px": Listed(whole(1, MOST_SIDE), 2, 2)},
)


def problem(facts: dict, key: str) -> str:
    """The first thing that is wrong with the facts, by its key; empty if they can be used."""
    if wrong := FACTS.problem(facts, key):
        return wrong
    within = f"{key}." if key else ""
    names, colors = facts["class_names"], facts["class_colors"]
    if len(set(names)) != len(names):
        return f"{within}class_names: names repeat"
    if len(colors) != len(names):
        return f"{within}class_colors: {len(colors)} colors of {len(names)} classes"
    return limits_problem(facts["normalization"], facts["percentiles"], f"{within}percentiles")


def limits_problem(kind: str, limits: list, key: str) -> str:
    """What is wrong with the limits of a way to normalize (`normalize.limits`)."""
    low, high = limits
    if kind in normalize.PERCENTILES and not 0 <= low < high <= 100:
        return f"{key}={list(limits)}: two rising numbers from 0 to 100"
    if kind == "range" and not low < high:
        return f"{key}={list(limits)}: two rising numbers"
    return ""
