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
APPLIED = {  # what any program of a model needs
    "class_names": Listed(Text(200, least=1), 2, MOST_CLASSES),
    "class_colors": Listed(Listed(whole(0, 255), 3, 3), 2, MOST_CLASSES),
    "channels": whole(1, MOST_CHANNELS),
    "normalization": NORMALIZATION,
    "percentiles": LIMITS,
}
FACTS = Fields(  # of a network and its weights
    {**APPLIED, "size_px": Listed(whole(1, MOST_SIDE), 2, 2)},
    {"training_images": Maybe(TRAINING_IMAGES)},
)
PROGRAM = Fields(APPLIED, FACTS.optional)


def problem(facts: dict, key: str, entries: Fields = FACTS) -> str:
    """The first thing that is wrong with the facts, by its key; empty if they can be used."""
    if wrong := entries.problem(facts, key):
        return wrong
    within = f"{key}." if key else ""
    names, colors = facts["class_names"], facts["class_colors"]
    if len(set(names)) != len(names):
        return f"{within}class_names: names repeat"
    if len(colors) != len(names):
        return f"{within}class_colors: {len(colors)} colors of {len(names)} classes"
    wrong = normalize.wrong_limits(facts["normalization"], facts["percentiles"])
    return wrong and f"{within}percentiles={facts['percentiles']}: {wrong}"
