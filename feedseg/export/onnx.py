"""A trained model as an ONNX file, made by jax2onnx and proved by onnxruntime.

    image [1, H, W, C] float32 in [0, 1] -> probabilities [1, H, W, K]

H and W are multiples of the stride, or, where the network cannot be written so, `tile` px each.
What `feedseg predict` needs to know stands in the file's metadata (`onnx_runtime.KEY`, JSON).
`feedseg.inference.onnx_runtime` reads it, without JAX.
"""

import contextlib
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.export import jaxpr, portable
from feedseg.export.card import ModelCard
from feedseg.inference import onnx_runtime
from feedseg.inference.trained import JaxPredictor
from feedseg.runtime import files
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import write_atomically

OPSET = 21
_NEEDED = ("jax2onnx", "onnx", "onnxruntime")


def export(model: JaxPredictor, to: Path, card: ModelCard, *, tile: int = 0) -> float:
    """Write a model as an ONNX file; returns how far onnxruntime's probabilities are from JAX's.

    tile: px, the only side it then takes; 0: any where possible.
    Raises UserError if a library is missing, the network cannot be converted, the file does not
    give what the model gives, or it cannot be written.
    """
    data, side = graph(model, to, card, tile)
    off = portable.check(to, model, side, onnx_runtime.session(data))
    write_atomically(to, lambda temporary: temporary.write_bytes(data))
    return off


def graph(model: JaxPredictor, to: Path, card: ModelCard, tile: int = 0) -> tuple[bytes, int]:
    """The ONNX file's bytes, and the side that it takes, px (0: any); UserError as in `export`."""
    if missing := [name for name in _NEEDED if not find_spec(name)]:
        raise UserError(f"{to}: this needs {', '.join(missing)}; pip install 'feedseg[onnx]'")
    converted, side = portable.convert(model, tile, _checked)
    facts = {"format": onnx_runtime.FORMAT, **portable.facts(model, side, card)}
    entry = converted.metadata_props.add()
    entry.key, entry.value = onnx_runtime.KEY, files.to_json(facts)
    return onnx_runtime.with_digest(converted.SerializeToString()), side


def _checked(model: JaxPredictor, side: int) -> Any:
    """The converted model if onnxruntime can run it."""
    converted = _any_side(model) if side == 0 else _convert(model, (side, side))
    image, _ = portable.test_pair(model, side)
    onnx_runtime.session(converted.SerializeToString())(image)
    return converted


def _convert(model: JaxPredictor, sides: tuple[Any, ...]) -> Any:
    """An ONNX model of an image whose [H, W] stand in `sides`, there in two dimensions or four."""
    network = portable.probabilities(model)
    image = jax.ShapeDtypeStruct((1, *sides, portable.channels(model)), jnp.float32)
    height, width = (sides[0], sides[-1]) if len(sides) == 2 else _products(sides)
    with _silence():
        from jax2onnx import to_onnx

        function = jaxpr.simplified(
            lambda x: network(x.reshape(1, height, width, portable.channels(model))), image
        )
        return to_onnx(
            function,
            [image],
            model_name="feedseg",
            opset=OPSET,
            input_names=["image"],
            output_names=["probabilities"],
        )


def _products(sides: tuple[Any, ...]) -> tuple[Any, Any]:
    a, b, c, d = sides
    return a * b, c * d


def _any_side(model: JaxPredictor) -> Any:
    """Converted for [1, h, stride, w, stride, C], with a reshape to that in front.

    So no side has to be divided by the stride, of which a converter does not know the result.
    """
    from onnx import TensorProto, helper, numpy_helper

    h, w = jax.export.symbolic_shape("h, w")
    stride = model.stride
    converted = _convert(model, (h, stride, w, stride))
    graph = converted.graph
    graph.input[0].name = "cells"
    for node in graph.node:
        node.input[:] = ["cells" if name == "image" else name for name in node.input]
    largest = 2**30
    constants = {
        "axes": [0, 1, 1, 2, 2, 3],
        "parts": [1, stride, 1, stride, 1, 1],
        "most": [1, largest, stride, largest, stride, portable.channels(model)],
    }
    for name, values in constants.items():
        array = np.array(values, np.int64)
        graph.initializer.append(numpy_helper.from_array(array, f"cells_{name}"))
    nodes = [
        helper.make_node("Shape", ["image"], ["image_shape"]),
        helper.make_node("Gather", ["image_shape", "cells_axes"], ["cells_sides"]),
        helper.make_node("Div", ["cells_sides", "cells_parts"], ["cells_counts"]),
        helper.make_node("Min", ["cells_counts", "cells_most"], ["cells_shape"]),
        helper.make_node("Reshape", ["image", "cells_shape"], ["cells"]),
    ]
    body = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes, *body])
    for name, values, last in (
        ("image", graph.input, portable.channels(model)),
        ("probabilities", graph.output, len(model.class_names)),
    ):
        shape = [1, "H", "W", last]
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return converted


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the converter's remarks on its own parts."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
