"""Segmenting a source of rows step by step: what the widget's thread does. No Qt here."""

import functools
import os
from collections.abc import Generator
from threading import Event
from typing import NamedTuple

import numpy as np

from feedseg.inference import backends, bundled, remarks, segment
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.io.source import ImageSource
from feedseg.runtime import notes
from feedseg.runtime.errors import UserError

_REMEDIES = {  # by channels of the layer and of the model
    (1, 3): "select its channel layers, right click, Merge to RGB",
    (3, 1): "right click on the layer, Split RGB, and take one of them",
}
_WORDS = {"--dihedral": "the average over 8 orientations", "--tile": "tile"}  # as here


class Request(NamedTuple):
    """What is asked for. model: as in `feedseg.load`; tile: px, 0: automatic."""

    model: str
    dihedral: bool = False
    tile: int = 0
    uncertainty: bool = False
    instances: InstanceSpec | None = None


class Result(NamedTuple):
    """What was found; all maps have the shape [..., H, W] of the layer.

    labels uint8 class ids; uncertainty float32, bits; instances int32 ids, every page from 1 on.
    class_colors: RGB 0-255; note: what the user should know of it, or empty.
    """

    labels: np.ndarray
    uncertainty: np.ndarray | None
    instances: np.ndarray | None
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    note: str = ""


class Cancelled(Exception):
    """The user does not want the result any more."""


Steps = Generator[int, None, Result]


def guarded(
    source: ImageSource, shape: tuple[int, ...], request: Request, stop: Event
) -> Generator[int, None, Result | str]:
    """`steps`, or what to tell somebody who sees a widget; nothing where the user ended it.

    Text and no error, because an error, even as a result, is a bug to napari's threads.
    """
    try:
        return (yield from steps(source, shape, request, stop))
    except Cancelled:
        return ""
    except MemoryError:
        return f"{source.path}: out of memory; close other layers or crop the image"
    except UserError as error:
        text = str(error)
        for option, words in _WORDS.items():
            text = text.replace(option, words)
        return text


def steps(source: ImageSource, shape: tuple[int, ...], request: Request, stop: Event) -> Steps:
    """Segments every page of a source; yields numbers of rows that are done.

    source, shape: of `images.source_of`; stop: ends it before the next tile.
    Returns a Result. Raises Cancelled, and UserError for what the model cannot take.
    """
    mark = bundled.fingerprint(request.model)
    predictor = _model(request.model, mark, request.dihedral, request.uncertainty)
    classes, rule = len(predictor.class_names), request.instances
    if rule:
        rule.check(predictor.class_names)
        rule.check_memory(*shape[-2:])
    labels = np.zeros((source.count * source.height, source.width), np.uint8)
    spread = np.zeros(labels.shape, np.float32) if request.uncertainty else None
    row = 0
    fitting = segment.FittingImage(source, predictor)
    for slab in _slabs(fitting, predictor, request.tile, stop):
        stop_row = row + len(slab)
        labels[row:stop_row] = slab[..., :classes].argmax(-1)
        if spread is not None:
            spread[row:stop_row] = slab[..., classes]
        row = stop_row
        yield len(slab)
    with notes.collected() as texts:
        remarks.on_result(fitting, labels, predictor)
    labels = labels.reshape(shape)
    return Result(
        labels,
        None if spread is None else spread.reshape(shape),
        _instances(labels, rule, predictor, stop) if rule else None,
        predictor.class_names,
        predictor.class_colors,
        "\n".join(filter(None, [segment.tile_rule(predictor), *texts])),
    )


@functools.lru_cache(maxsize=2)
def _model(where: str, fingerprint: str, dihedral: bool, uncertainty: bool):
    """The model ready for tiles, kept for the next image; another fingerprint is another model."""
    # napari draws with the same GPU, most of which JAX would take for itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return backends.load(where, dihedral=dihedral, uncertainty=uncertainty)


def _slabs(source: segment.FittingImage, predictor, tile: int, stop: Event):
    def apply(image):
        if stop.is_set():
            raise Cancelled
        return predictor.apply(image)

    stoppable = predictor._replace(apply=apply)
    try:
        yield from segment.predict_rows(stoppable, source, tile)
    except UserError as error:
        what, sign, _ = str(error).partition(f"channel(s), the model takes {predictor.channels}")
        if not sign:
            raise
        own = "a layer holds one channel or RGB; use `feedseg predict` for such files"
        remedy = _REMEDIES.get((source.given_channels, predictor.channels), own)
        raise UserError(f"{what}{sign}; {remedy}") from None


def _instances(labels: np.ndarray, rule: InstanceSpec, predictor, stop: Event) -> np.ndarray:
    """Ids of every page, int32 [..., H, W] as the labels."""
    ids = np.zeros(labels.shape, np.int32)
    for page in np.ndindex(labels.shape[:-2]):
        if stop.is_set():
            raise Cancelled
        ids[page] = rule.find(labels[page], predictor.class_names)
    return ids


class About(NamedTuple):
    """What the widget says of a model before it is loaded. card: of many lines."""

    class_names: tuple[str, ...]
    description: str
    card: str


def about(model: str) -> About:
    """Facts of a model, named as in `feedseg.load`. Raises UserError if there is none."""
    path = bundled.find(model)
    from feedseg.inference import model_file

    if model_file.is_package(path):
        described = model_file.read_manifest(path)
        names = tuple(described["facts"]["class_names"])
        return About(names, described["card"].get("description", ""), bundled.card(described))
    from feedseg.runs.directory import RunDir, read_json

    names = tuple(read_json(RunDir(path).data)["class_names"])
    return About(names, f"run {path.name}", str(path))
