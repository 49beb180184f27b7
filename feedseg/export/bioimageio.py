"""A trained model as a bioimage.io package, `model.bioimageio.zip` (specification 0.5).

    rdf.yaml         axes (batch 1, y, x, channel), sizes, halo, normalization, licence, ...
    weights.onnx     of `feedseg.export.onnx`; `feedseg predict` takes it too
    test_input.npy   a raw image [1, H, W, C], and
    test_output.npy  the probabilities [1, H, W, K] that JAX gives for it
    README.md, cover.png

Both libraries of bioimage.io have to accept it before it gets its name: bioimageio.spec its
description, bioimageio.core that onnxruntime gives the test output for the raw test input.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from feedseg.datasets.tools.overlay_sheet import stretch
from feedseg.export import bioimageio_readme, bioimageio_spec, onnx, portable
from feedseg.export.bioimageio_spec import OPTIONS
from feedseg.export.card import ModelCard
from feedseg.inference import bundled, loading, model_file, onnx_runtime
from feedseg.inference import example as examples
from feedseg.inference.trained import JaxPredictor
from feedseg.io import normalize
from feedseg.io.colors import overlay
from feedseg.runtime.errors import UserError, one_line
from feedseg.runtime.files import write_atomically

SUFFIX = bioimageio_spec.SUFFIX
COVER = 256  # px, side of each half of the cover at most
PIXEL_TYPES = ("uint8", "uint16", "float32")
_NEEDED = ("bioimageio.spec", "bioimageio.core")


def export(
    where: Path,
    to: Path,
    card: dict,
    *,
    example: Path | None = None,
    checkpoint: str = "best",
    tile: int = 0,
    pixel_type: str = "",
) -> str:
    """Write the model of a run, a model file or a name as a package; returns what to know, a line.

    card: of `model_file.manifest`, and `authors`, names with ; between them. example: an image file
    whose middle is the test input; without one the model file's own, or waves. tile: px, the only
    side it then takes; 0: any where possible. pixel_type: of the images, one of `PIXEL_TYPES`, of
    which dtype_range takes the largest value to 1; uint8 if not given.
    Raises UserError if a library is missing, the package cannot say how the model normalizes, the
    card is not what bioimage.io takes, its test fails, or it cannot be written.
    """
    to = Path(to)
    if missing := [name for name in _NEEDED if not _is_there(name)]:
        raise UserError(f"{to}: this needs {', '.join(missing)}; pip install 'feedseg[bioimageio]'")
    model = loading.load(where, checkpoint)
    kind = _pixel_type(to, model, pixel_type)
    about = portable.model_card(where, checkpoint, card)
    bioimageio_readme.check(about.card)
    data, side = onnx.graph(model, to, about, tile)
    off = portable.check(to, model, side, onnx_runtime.session(data))
    image = _example(model, where, example)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        paths = _write_text(Path(folder), to, data, model, kind, about)
        paths |= _write_images(Path(folder), model, side, kind, image)
        described = bioimageio_spec.describe(to, model, side, kind, about, paths)
        packed = _packed(to, described, Path(folder) / to.name)
        write_atomically(to, lambda temporary: temporary.write_bytes(packed.read_bytes()))
    wanted = [OPTIONS[key] for key in OPTIONS if not getattr(described, key)]
    hint = f"; to publish it add {', '.join(wanted)}" if wanted else ""
    said = f"its probabilities differ from the model's by at most {off:.1g}"
    return f"{said}, and it passes the test of bioimageio.core{hint}"


def _is_there(name: str) -> bool:
    return bool(find_spec(name.partition(".")[0]) and find_spec(name))


def _pixel_type(to: Path, model: JaxPredictor, asked: str) -> str:
    """What the test input is, and the images have to be where the rule goes by their type."""
    if model.contracts:
        raise UserError(
            f"{to}: the members of this ensemble normalize in different ways, for which bioimage.io"
            " has no words; export a member, or the ensemble as .onnx"
        )
    if asked and asked not in PIXEL_TYPES:
        raise UserError(f"--pixel-type {asked}: choose one of {', '.join(PIXEL_TYPES)}")
    if model.normalization == "dtype_range":
        return asked or "uint8"
    if asked:
        raise UserError(
            f"--pixel-type {asked}: this model takes the percentiles of images of any type; "
            "leave it out"
        )
    return "float32"


def _example(model: JaxPredictor, where: Path, example: Path | None) -> np.ndarray:
    """An image [1, H, W, C] in [0, 1]."""
    if example:
        return examples.crop(model, Path(example))
    path = bundled.find(where)
    return (
        model_file.read(path).test_input
        if model_file.is_package(path)
        else loading.test_image(model)
    )


def _fitted(image: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Filled up with its mirror image, or cut, to sides that the program takes."""
    least, step = sides
    wanted = [max(n // step * step, least) if step else least for n in image.shape[1:3]]
    rest = [(0, max(0, want - have)) for want, have in zip(wanted, image.shape[1:3], strict=True)]
    filled = np.pad(image, ((0, 0), *rest, (0, 0)), mode="symmetric")
    return filled[:, : wanted[0], : wanted[1]]


def _raw(image: np.ndarray, model: JaxPredictor, kind: str) -> np.ndarray:
    """Grey values of the type for an image in [0, 1]; whole ones where percentiles are taken."""
    if model.normalization in normalize.PERCENTILES:
        return np.rint(255 * image).astype(np.float32)
    top = 1.0 if kind == "float32" else np.iinfo(kind).max
    return (image if kind == "float32" else np.rint(top * image)).astype(kind)


def _write_text(
    folder: Path, to: Path, data: bytes, model: JaxPredictor, kind: str, about: ModelCard
) -> dict[str, Path]:
    """The weights and the README, by name."""
    paths = {name: folder / name for name in ("weights.onnx", "README.md")}
    paths["weights.onnx"].write_bytes(data)
    text = bioimageio_readme.readme(bioimageio_spec.name_of(to, about), model, kind, about)
    paths["README.md"].write_text(text, encoding="utf-8")
    return paths


def _write_images(
    folder: Path, model: JaxPredictor, side: int, kind: str, image: np.ndarray
) -> dict[str, Path]:
    """The test tensors, and the cover, by name. image: [1, H, W, C] in [0, 1]."""
    from PIL import Image

    paths = {n: folder / n for n in ("test_input.npy", "test_output.npy", "cover.png")}
    raw = _raw(_fitted(image, bioimageio_spec.sides(model, side)), model, kind)
    limits = normalize.limits(raw[0], model.normalization, model.percentiles)
    normalized = normalize.apply(raw, *limits)
    answer = np.asarray(model.apply(normalized), np.float32)
    np.save(paths["test_input.npy"], raw)
    np.save(paths["test_output.npy"], answer)
    shown = min(*image.shape[1:3], *answer.shape[1:3], COVER)
    parts = (each[0, :shown, :shown] for each in (normalized, answer))
    Image.fromarray(_cover(*parts, model)).save(paths["cover.png"])
    return paths


def _cover(image: np.ndarray, answer: np.ndarray, model: JaxPredictor) -> np.ndarray:
    """A square image and its classes side by side, uint8 [side, 2 side, 3]."""
    seen = stretch(image)
    tinted = overlay(seen, answer.argmax(-1), model.class_colors)
    return np.concatenate([np.rint(255 * seen).astype(np.uint8), tinted], 1)


def _packed(to: Path, described: Any, path: Path) -> Path:
    """The package at `path`, valid and tested; UserError with the reason if it is not."""
    from bioimageio.core import test_model
    from bioimageio.spec import save_bioimageio_package

    try:
        save_bioimageio_package(described, output_path=path)
    except ValueError as error:
        raise UserError(
            f"{to}: not written, bioimageio.spec refuses it: {one_line(error)}"
        ) from None
    summary = test_model(path, weight_format="onnx")
    if summary.status != "passed":
        reasons = [f"{each.name}: {e.msg}" for each in summary.details for e in each.errors]
        reason = one_line("; ".join(reasons) or summary.status)
        raise UserError(f"{to}: not written, it fails the test of bioimageio.core: {reason}")
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own remarks."""
    from loguru import logger

    logger.disable("bioimageio")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.enable("bioimageio")
