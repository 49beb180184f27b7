"""A trained model as a program without feedseg: what StableHLO and ONNX have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import feedseg
from feedseg.export.card import ModelCard
from feedseg.inference import bundled, loading, model_file, tiling
from feedseg.inference.trained import JaxPredictor
from feedseg.models.layers import convolve
from feedseg.runs.directory import RunDir, read_json
from feedseg.runtime.errors import UserError, one_line

# what converters raise for what they do not know; JAX's own where a side has to be a number
CANNOT = (
    jax.errors.InconclusiveDimensionOperation,
    ArithmeticError,
    AssertionError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def probabilities(model: JaxPredictor) -> Callable[[Any], jax.Array]:
    """image [N, H, W, C] float32 in [0, 1] -> probabilities [N, H, W, K], to be traced.

    Written in the compilers' own operations, not in the forms that are fast on this machine.
    """

    def apply(image):
        with convolve.plain_forms():
            return model.apply(image).astype(jnp.float32)

    return apply


def sides(model: JaxPredictor, tile: int = 0) -> Sequence[int]:
    """The sides to try in order, px; 0: any multiple of the stride.

    tile: asked for, 0: any side where the network can be written so, else one that tiles well.
    Raises UserError for a side that the network cannot have.
    """
    if model.window:
        if tile not in (0, model.window):
            raise UserError(f"--tile {tile}: this network sees {model.window} px as in training")
        return (model.window,)
    least = tiling.smallest_tile(model.halo, model.stride)
    if tile and (tile < least or tile % model.stride):
        raise UserError(f"--tile {tile}: at least {least} px, in steps of {model.stride} px")
    return (tile,) if tile else (0, tiling.automatic_tile(model.halo, model.stride))


def convert(
    model: JaxPredictor, tile: int, how: Callable[[JaxPredictor, int], Any]
) -> tuple[Any, int]:
    """What `how(model, side)` makes of the first side that it can, and that side.

    Raises UserError with the reason if it can make nothing of any.
    """
    for side in (tried := sides(model, tile)):
        try:
            return how(model, side), side
        except CANNOT as error:
            if side == tried[-1]:
                reason = one_line(error)
                raise UserError(
                    f"this network cannot be written so ({type(error).__name__}: {reason}); "
                    "export it as .feedseg.zip, or .stablehlo.zip, which takes every network"
                ) from error
    raise AssertionError("there is always a side to try")


def test_pair(model: JaxPredictor, side: int) -> tuple[np.ndarray, np.ndarray]:
    """An image that the program takes, and the model's own probabilities for it."""
    image = loading.test_image(model._replace(window=side) if side else model)
    return image, np.asarray(model.apply(image), np.float32)


def channels(model: JaxPredictor) -> int:
    """Of the image that the program takes: once by each way of normalizing (`JaxPredictor`)."""
    return model.channels * max(1, len(model.contracts))


def check(to: Path, model: JaxPredictor, side: int, program: Callable) -> float:
    """How far a program's probabilities are from the model's, largest difference.

    A program of any side is tried with a second image, which is no square.
    Raises UserError, naming the file that is to be written, if they are too far.
    """
    image, _ = test_pair(model, side)
    wide = np.concatenate([image, image[:, :, : model.stride]], 2)
    off = 0.0
    for each in [image] if side else [image, wide]:
        found, wanted = (np.asarray(apply(each), np.float32) for apply in (program, model.apply))
        same = found.shape == wanted.shape
        off = max(off, float(np.abs(found - wanted).max()) if same else np.inf)
        if not off <= loading.TOLERANCE:
            raise UserError(f"{to}: not written, it gives other probabilities, {off:.3g} off")
    return off


def facts(model: JaxPredictor, side: int, card: ModelCard) -> dict:
    """What a user of the program needs to know."""
    return {
        "feedseg": feedseg.__version__,
        "class_names": model.class_names,
        "class_colors": model.class_colors,
        "channels": model.channels,
        "normalization": model.normalization,
        "percentiles": model.percentiles,
        "contracts": model.contracts,
        "training_images": model.training_images.plain(),
        "stride": model.stride,
        "halo": model.halo,
        "tile": side,
        "whole_image": bool(model.window),
        **card._asdict(),
    }


def model_card(where: Path, checkpoint: str, texts: dict[str, str]) -> ModelCard:
    """The card of a run's model or of a model file, with new texts in it."""
    path = bundled.find(where)
    if model_file.is_package(path):
        known = ModelCard.of(model_file.read_manifest(path))
        return known._replace(card={**known.card, **texts})
    run = RunDir(path)
    result = run.finished() if checkpoint == "best" else None
    scores = result["metrics"] if result else {}
    network = run.stored_config().model.to_dict()
    return ModelCard(network, read_json(run.data).get("name", ""), dict(texts), scores)
