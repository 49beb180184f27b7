"""A trained model as a StableHLO program, `model.stablehlo.zip`: JAX runs it without feedseg.

    model.stablehlo  the program as `jax.export` serialises it: an image [N, H, W, C] float32 in
                     [0, 1] to probabilities [N, H, W, K], for CPU, NVIDIA GPU and TPU
    model.json       classes, colors, normalization, stride, halo, tile, licence, scores
    test_input.npy   an image, and
    test_output.npy  the probabilities that the model gave for it
    example.py       how to use it; it needs numpy, jax and flatbuffers, not feedseg

N is any number; H and W are multiples of the stride, or, where the network cannot be written so,
`tile` px each.
"""

import io
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.export import portable
from feedseg.export.card import ModelCard
from feedseg.inference.trained import JaxPredictor
from feedseg.runtime import files
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import write_atomically

SUFFIX = ".stablehlo.zip"
PLATFORMS = ("cpu", "cuda", "tpu")

EXAMPLE = '''\
"""Segments an image with the model in this archive: python example.py, in the unpacked folder.

Your own image: float32 [N, H, W, C] in [0, 1], scaled as model.json's `normalization` says:
dtype_range divides integers by their type's largest value; image_percentile takes the two
`percentiles` of the image to 0 and 1 and clips, channel_percentile those of each channel. A result
is exact from `halo` px on inside the border of what the program sees, or at that of the image.
"""

import json
import pathlib

import jax
import numpy as np

folder = pathlib.Path(__file__).parent
program = jax.export.deserialize((folder / "model.stablehlo").read_bytes())
classes = json.loads((folder / "model.json").read_text())["class_names"]
image, expected = (np.load(folder / f"test_{name}.npy") for name in ("input", "output"))
probabilities = np.asarray(program.call(image))  # [N, H, W, K]
labels = probabilities.argmax(-1)
print(dict(zip(classes, np.bincount(labels.ravel(), minlength=len(classes)).tolist())))
print("largest difference from the expected probabilities", abs(probabilities - expected).max())
'''


def export(model: JaxPredictor, to: Path, card: ModelCard, *, tile: int = 0) -> float:
    """Write a model as a StableHLO program; returns how far it is from the model, largest.

    tile: px, the only side it then takes; 0: any where possible.
    Raises UserError if flatbuffers is missing, the program does not give what the model gives, or
    the file cannot be written.
    """
    if not find_spec("flatbuffers"):
        raise UserError(f"{to}: this needs flatbuffers; pip install 'feedseg[export]'")
    program, side = portable.convert(model, tile, _program)
    data = bytes(program.serialize())
    again = jax.export.deserialize(bytearray(data))
    off = portable.check(to, model, side, again.call)
    image, answer = portable.test_pair(model, side)
    facts = {"format": "feedseg stablehlo", "platforms": program.platforms}
    facts |= portable.facts(model, side, card)
    members = {
        "model.stablehlo": data,
        "model.json": files.to_json(facts, indent=1).encode(),
        "test_input.npy": _npy(image),
        "test_output.npy": _npy(answer),
        "example.py": EXAMPLE.encode(),
    }
    write_atomically(to, _zipping(members))
    return off


def _program(model: JaxPredictor, side: int) -> jax.export.Exported:
    """The program for images of this side, 0: of any multiple of the stride."""
    if side:
        shape = (*jax.export.symbolic_shape("n"), side, side)
    else:
        n, h, w = jax.export.symbolic_shape("n, h, w")
        shape = (n, h * model.stride, w * model.stride)
    function = jax.jit(portable.probabilities(model))
    image = jax.ShapeDtypeStruct((*shape, portable.channels(model)), jnp.float32)
    return jax.export.export(function, platforms=PLATFORMS)(image)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _zipping(members: dict[str, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return write
