"""The description of a model in the words of bioimage.io, specification 0.5."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from feedseg.export import bioimageio_readme, onnx, portable
from feedseg.export.card import ModelCard
from feedseg.inference import tiling
from feedseg.inference.trained import JaxPredictor
from feedseg.io import normalize
from feedseg.runtime.errors import UserError, one_line

SUFFIX = ".bioimageio.zip"
OPTIONS = {
    "name": "--to",
    "description": "--description",
    "license": "--licence",
    "cite": "--citation",
    "authors": "--authors",
}


def describe(
    to: Path, model: JaxPredictor, side: int, kind: str, about: ModelCard, paths: dict[str, Path]
) -> Any:
    """The model's description as bioimageio.spec has it, of the files in `paths`.

    side: px, 0: any. kind: pixel type of the images. about: its card.
    Raises UserError, naming the option that gives the field, if it is not taken.
    """
    from bioimageio.spec.model import v0_5
    from pydantic import ValidationError

    fields = {
        "name": name_of(to, about),
        **bioimageio_readme.fields(about.card),
        "tags": ["semantic-segmentation", "microscopy", about.network["name"], "2d"],
        "documentation": {"source": paths["README.md"]},
        "covers": [{"source": paths["cover.png"]}],
        "inputs": [_input(model, side, kind, paths)],
        "outputs": [_output(model, paths)],
        "weights": {"onnx": {"source": paths["weights.onnx"], "opset_version": onnx.OPSET}},
        "config": {"feedseg": portable.facts(model, side, about)},
    }
    try:
        return v0_5.ModelDescr.model_validate(
            {"type": "model", "format_version": v0_5.ModelDescr.implemented_format_version} | fields
        )
    except ValidationError as error:
        if "index_key" in str(error):  # of pydantic 2.14 to a bioimageio.spec older than it
            raise UserError(
                f"{to}: this bioimageio.spec does not go with this pydantic; "
                "pip install 'feedseg[bioimageio]'"
            ) from None
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "description"
        said = OPTIONS.get(field)
        raise UserError(
            f"{to}: bioimage.io does not take its {field} ({one_line(first['msg'])})"
            + (f"; change {said}" if said else "")
        ) from None


def _input(model: JaxPredictor, side: int, kind: str, paths: dict[str, Path]) -> dict:
    least, step = sides(model, side)
    size = {"min": least, "step": step} if step else least
    return {
        "id": "image",
        "axes": [
            {"type": "batch", "size": 1},
            *({"type": "space", "id": axis, "size": size} for axis in "yx"),
            {"type": "channel", "channel_names": bioimageio_readme.channels(model.channels)},
        ],
        "data": {"type": kind},
        "test_tensor": {"source": paths["test_input.npy"]},
        "preprocessing": preprocessing(model, kind),
    }


def _output(model: JaxPredictor, paths: dict[str, Path]) -> dict:
    """A network of whole images has no halo: its image is not to be cut into tiles."""
    halo = {"halo": model.halo} if model.halo and not model.window else {}

    def space(axis: str) -> dict:
        size = {"tensor_id": "image", "axis_id": axis}
        return {"type": "space", "id": axis, "size": size, **halo}

    return {
        "id": "probabilities",
        "axes": [
            {"type": "batch", "size": 1},
            *map(space, "yx"),
            {"type": "channel", "channel_names": list(model.class_names)},
        ],
        "data": {"type": "float32", "range": (0.0, 1.0)},
        "test_tensor": {"source": paths["test_output.npy"]},
    }


def name_of(to: Path, about: ModelCard) -> str:
    """The model's name there: the file's and the network's."""
    stem = re.sub(r"[^\w+() -]", "-", to.name.removesuffix(SUFFIX), flags=re.ASCII)
    return f"{stem} ({about.network['name']} by feedseg)"


def preprocessing(model: JaxPredictor, kind: str) -> list[dict]:
    """`feedseg.io.normalize` in the words of bioimage.io, for images of a pixel type.

    Its percentiles divide by `high - low + eps`, ours by `high - low`, so its values are smaller
    by the part eps / (high - low); bioimageio.core knows no eps but 1e-6. Nothing in float32 for
    images of integers, 1e-6 for an image that fills [0, 1].
    """
    to_float = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
    if model.normalization in normalize.PERCENTILES:
        low, high = model.percentiles
        percentiles = {"min_percentile": low, "max_percentile": high}
        channel = ["channel"] if model.normalization == "image_percentile" else []
        scaled = {"axes": ["y", "x", *channel], "eps": 1e-6, **percentiles}
        steps = [{"id": "scale_range", "kwargs": scaled}]
    elif kind == "float32":
        steps = []
    else:
        steps = [{"id": "scale_linear", "kwargs": {"gain": 1 / np.iinfo(kind).max, "offset": 0.0}}]
    clip = {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}
    return [to_float, *steps, clip, to_float]


def sides(model: JaxPredictor, side: int) -> tuple[int, int]:
    """The least side and the step between sides, px; step 0 where there is only one."""
    return (side, 0) if side else (tiling.smallest_tile(model.halo, model.stride), model.stride)
