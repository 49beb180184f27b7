"""Applies a model in an ONNX file (`feedseg export RUN --to model.onnx`) without JAX."""

import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.inference import facts as model_facts
from feedseg.inference import tta
from feedseg.inference.predictor import TrainingImages
from feedseg.inference.uncertainty import disagreement
from feedseg.io import normalize
from feedseg.runtime import json_files
from feedseg.runtime.allowed import Anything, Fields, Flag, Listed, whole
from feedseg.runtime.errors import UserError, one_line

SUFFIX = ".onnx"
FORMAT, KEY = "feedseg onnx", "feedseg"
DIGEST = "feedseg.sha256"  # key of the metadata entry with which a file ends
MOST_BYTES = 2**31  # of a file of Protocol Buffers
_ENTRIES = Fields(
    {
        "contracts": Listed(Listed(Anything(), 2, 2), 0, 1000),
        "whole_image": Flag(),
        "stride": whole(1, model_facts.MOST_SIDE),
        "halo": whole(0, model_facts.MOST_SIDE),
        "tile": whole(0, model_facts.MOST_SIDE),
    }
)

Apply = Callable[[np.ndarray], np.ndarray]


class OnnxPredictor(NamedTuple):
    """A model as `feedseg.inference.predictor.Predictor` wants it."""

    apply: Apply  # image [N, H, W, C] float32 in [0, 1] -> probabilities [N, H, W, K]
    stride: int
    halo: int
    window: int  # px, side of the windows that a network of whole images takes; 0: any
    tile: int  # px, the only side that the program takes; 0: any
    channels: int
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    normalization: str
    percentiles: tuple[float, float]
    contracts: tuple[tuple[str, tuple[float, float]], ...]  # see `feedseg.inference.trained`
    margin: int = 0
    training_images: TrainingImages = TrainingImages()


def load(path: Path) -> OnnxPredictor:
    """The model of an ONNX file that feedseg made.

    Raises UserError, naming the file, if onnxruntime is missing or the file is not such a one.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise UserError(f"{path}: larger than an ONNX file can be, {MOST_BYTES:,} bytes")
            data = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not find_spec("onnxruntime"):
        raise UserError(f"{path}: this needs onnxruntime; pip install 'feedseg[onnx]'")
    try:
        run = session(data)
    except RuntimeError as error:
        raise UserError(f"{path}: onnxruntime cannot read it ({error})") from None
    if DIGEST in run.metadata and data != with_digest(data[: -len(with_digest(b""))]):
        raise UserError(f"{path}: was changed after its export; copy it again or export it anew")
    facts = _facts(path, run.metadata)
    _require_shapes(path, run, facts)
    return OnnxPredictor(
        apply=_fixed(path, run, facts["tile"]) if facts["tile"] else run,
        stride=facts["stride"],
        halo=facts["halo"],
        window=facts["tile"] if facts["whole_image"] else 0,
        tile=facts["tile"],
        channels=facts["channels"],
        class_names=tuple(facts["class_names"]),
        class_colors=tuple(tuple(color) for color in facts["class_colors"]),
        normalization=facts["normalization"],
        percentiles=tuple(facts["percentiles"]),
        contracts=tuple((kind, tuple(limits)) for kind, limits in facts["contracts"]),
        training_images=TrainingImages.of(facts),
    )


def with_digest(data: bytes) -> bytes:
    """An ONNX file's bytes and behind them, as one more entry of the metadata, their SHA-256.

    The entry is field 14 of the message ModelProto, with its key as field 1 and its value as
    field 2, all of fewer than 128 bytes.
    """
    texts = DIGEST.encode(), hashlib.sha256(data).hexdigest().encode()
    entry = b"".join(bytes([8 * n + 2, len(text)]) + text for n, text in enumerate(texts, 1))
    return data + bytes([8 * 14 + 2, len(entry)]) + entry


def _require_shapes(path: Path, run: "Session", facts: dict) -> None:
    """Raises UserError unless the program takes and gives what the metadata say, where it says."""
    channels = facts["channels"] * max(1, len(facts["contracts"]))
    wanted = channels, len(facts["class_names"])
    if any(isinstance(n, int) and n != want for n, want in zip(run.sizes, wanted, strict=True)):
        raise UserError(
            f"{path}: takes {run.sizes[0]} channels and gives {run.sizes[1]} classes, its metadata "
            f"say {wanted[0]} and {wanted[1]}; export the model again"
        )


def _fixed(path: Path, apply: Apply, side: int) -> Apply:
    """Smaller images are filled up to the side with their mirror image, below and to the right."""

    def on_any(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[1:3]
        if max(height, width) > side:
            raise UserError(f"{path}: takes tiles of {side} px, not {height} x {width}; use these")
        rest = ((0, 0), (0, side - height), (0, side - width), (0, 0))
        return apply(np.pad(image, rest, mode="symmetric"))[:, :height, :width]

    return on_any


class Session:
    """An ONNX file's program; called with [N, H, W, C] it gives [N, H, W, K], image by image."""

    def __init__(self, inner):
        self._inner = inner
        self.metadata: dict[str, str] = dict(inner.get_modelmeta().custom_metadata_map)
        image, result = inner.get_inputs()[0], inner.get_outputs()[0]
        self._name = image.name
        self.sizes = (image.shape or [None])[-1], (result.shape or [None])[-1]  # of the last axis

    def __call__(self, image: np.ndarray) -> np.ndarray:
        pages = np.ascontiguousarray(image, np.float32)
        try:
            found = [self._inner.run(None, {self._name: page[None]})[0] for page in pages]
        except Exception as error:  # of many classes, all of which derive from Exception alone
            if "allocate memory" in str(error):
                raise MemoryError(one_line(error)) from None
            raise RuntimeError(one_line(error)) from None
        return np.concatenate(found)


def session(data: bytes) -> Session:
    """onnxruntime's program of these bytes, on a GPU where onnxruntime-gpu has one.

    Raises RuntimeError if it cannot read them.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if _has_affinity() else 0
    usable = onnxruntime.get_available_providers()
    providers = [f"{name}ExecutionProvider" for name in ("CUDA", "CPU")]
    providers = [name for name in providers if name in usable]
    try:
        return Session(onnxruntime.InferenceSession(data, options, providers=providers))
    except Exception as error:  # as above
        raise RuntimeError(one_line(error)) from None


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")


def _facts(path: Path, metadata: dict[str, str]) -> dict:
    """What the file says about itself."""
    try:
        facts = json_files.parse(metadata.get(KEY, "null"))
    except ValueError:
        facts = {}
    if facts.get("format") != FORMAT:
        raise UserError(f"{path}: was not made by feedseg; `feedseg export RUN --to {path.name}`")
    problem = model_facts.problem(facts, "", model_facts.PROGRAM)
    problem = problem or _ENTRIES.problem(facts) or _contracts_problem(facts)
    if problem:
        raise UserError(f"{path}: its metadata: {problem}; export the model again")
    return facts


def _contracts_problem(facts: dict) -> str:
    """What is wrong with the ways to normalize of an ensemble's members, empty if nothing is."""
    for number, (kind, limits) in enumerate(facts["contracts"]):
        key = f"contracts[{number}]"
        problem = model_facts.NORMALIZATION.problem(kind, key)
        problem = problem or model_facts.LIMITS.problem(limits, key)
        if problem := problem or normalize.wrong_limits(kind, limits):
            return f"{key}: {problem}"
    return ""


def dihedral_mean(model: OnnxPredictor, uncertainty: bool = False) -> OnnxPredictor:
    """Its probabilities averaged over 8 rotations and mirrors, as `trained.dihedral_mean`.

    uncertainty: one channel more, how far the 8 answers disagree in bits (`disagreement`).
    """

    def apply(image: np.ndarray) -> np.ndarray:
        answers = np.stack(list(tta.orientations(model.apply, image)))
        mean = answers.mean(0)
        if not uncertainty:
            return mean
        return np.concatenate([mean, disagreement(answers)[..., None]], -1)

    return model._replace(apply=apply)
