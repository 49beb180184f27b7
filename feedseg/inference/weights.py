"""Which weights a network has, from its description alone, and whether others are these."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from feedseg import models
from feedseg.runs import config as configs
from feedseg.runs.checkpoint_format import to_flat
from feedseg.runtime.errors import UserError, one_line

Shape = tuple[int, ...]


def shapes(settings: Mapping, facts: Mapping, where: Path) -> dict[str, Shape]:
    """Shapes of a network's variables by name (`params/enc1_conv1/conv/kernel`).

    settings: `config.model`; facts: classes, channels and size of the images it was trained with.
    Raises UserError naming `where` if there is no such network.
    """
    text = json.dumps(settings, sort_keys=True)
    size = tuple(facts["size_px"])
    try:
        return _shapes(text, len(facts["class_names"]), facts["channels"], size)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # arguments that do not go together raise what JAX trips over
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(
            f"{where}: no network can be made of its settings ({kind}{one_line(error)})"
        ) from None


@functools.lru_cache(maxsize=16)
def _shapes(text: str, num_classes: int, channels: int, size: Shape) -> dict[str, Shape]:
    model = models.build(num_classes, configs.from_plain(json.loads(text)))
    image = small_image(model, channels, size)
    init = functools.partial(model.init, train=False)
    tree = jax.eval_shape(init, jax.random.key(0), image)
    return {name: leaf.shape for name, leaf in to_flat(tree).items()}


def small_image(model, channels: int, size: Shape) -> jax.ShapeDtypeStruct:
    """An image that the network takes; as large as in training where weights depend on the size."""
    whole = getattr(model, "whole_image", False)
    sides = size if whole else (model.stride * 2, model.stride * 2)
    return jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)


def require(where: Path, have: Mapping[str, Shape], want: Mapping[str, Shape]) -> None:
    """Raises UserError naming the first array that is missing, unknown or of another shape."""
    for name in sorted({*have, *want}):
        if have.get(name) != want.get(name):
            raise UserError(
                f"{where}: weights of another network: {name} has shape {have.get(name)}, "
                f"the config's network {want.get(name)}"
            )
