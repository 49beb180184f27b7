"""What the labels of a data set become: two classes of many, and maps for the loss."""

from collections.abc import Sequence

import numpy as np

from feedseg.datasets.common.border_weights import border_weights
from feedseg.datasets.common.dataset import VOID, RawData, Section
from feedseg.runtime.errors import UserError


def prepare(source: RawData, options) -> RawData:
    """The source with its maps, and with its classes joined where that is asked for.

    options: the config's `data` part. Maps are made once from whole images: `mask` (mask_values),
    the gray value of each pixel's class as it was; `border` (border_class), weights between cells.
    Raises UserError for class names that are not there and for numbers that fit no class.
    """
    if options.mask_values:
        source = _map_sections(source, "mask", _mask(source, options.mask_values))
    if options.foreground:
        source = join_classes(source, options.foreground)
    if options.border_class:
        border = _class_id(source, "border_class", options.border_class)
        for key in ("border_weight", "border_sigma_px"):
            if options[key] <= 0:
                raise UserError(f"data.{key}={options[key]}: must be above 0")
        source = _map_sections(
            source,
            "border",
            lambda label: border_weights(
                label, border, options.border_weight, options.border_sigma_px
            ),
        )
    return source


def join_classes(source: RawData, foreground: Sequence[str]) -> RawData:
    """Two classes: `background`, and the named ones together."""
    ids = [_class_id(source, "foreground", name) for name in foreground]
    table = np.zeros(256, np.uint8)
    table[ids], table[VOID] = 1, VOID
    return source._replace(
        sections=[s._replace(label=table[s.label]) for s in source.sections],
        class_names=("background", "+".join(foreground)),
        class_colors=((0, 0, 0), source.class_colors[ids[-1]]),
    )


def _class_id(source: RawData, key: str, name: str) -> int:
    if name not in source.class_names:
        raise UserError(f"data.{key}: no class {name!r}; there are {', '.join(source.class_names)}")
    return source.class_names.index(name)


def _mask(source: RawData, values: Sequence[float]):
    """The gray mask of a label, 0 where it is void."""
    if len(values) != len(source.class_names) or not all(0 <= value <= 1 for value in values):
        raise UserError(
            f"data.mask_values={tuple(values)}: one gray value from 0 to 1 for each of "
            f"{', '.join(source.class_names)}"
        )
    table = np.zeros(256, np.float32)
    table[: len(values)] = values
    return lambda label: table[label]


def _map_sections(source: RawData, name: str, make) -> RawData:
    def extend(section: Section) -> Section:
        return section._replace(maps={**section.maps, name: make(section.label)})

    return source._replace(sections=[extend(section) for section in source.sections])
