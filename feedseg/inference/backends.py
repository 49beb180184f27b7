"""Which library computes a prediction: JAX, or onnxruntime for files that end in .onnx.

Nothing here brings JAX before it is needed.
"""

from collections.abc import Sequence
from pathlib import Path

from feedseg.inference import onnx_runtime, rescaling
from feedseg.inference.predictor import Predictor
from feedseg.runtime.errors import UserError

BACKENDS = ("jax", "onnx")

Where = str | Path | Sequence[str | Path]


def load(
    where: Where,
    checkpoint: str = "best",
    rounds: int = 0,
    *,
    dihedral: bool = False,
    uncertainty: bool = False,
    only_labels: bool = False,
    scale: float | None = 1.0,
    backend: str = "",
) -> Predictor:
    """A model ready for tiles of images, see `read` and `for_images`.

    scale: of `rescaling.choose`; what comes back at another size are probabilities in any case.
    """
    model = read(where, checkpoint, rounds, backend)
    only_labels = only_labels and not rescaling.may_apply(model, scale)
    return for_images(model, dihedral, uncertainty, only_labels)


def read(where: Where, checkpoint: str = "best", rounds: int = 0, backend: str = "") -> Predictor:
    """A model; where, checkpoint, rounds: as in `loading.load`, or an ONNX file.

    backend: `jax` or `onnx`, else by the model's name. Raises UserError if there is no such model.
    """
    if choose(where, backend) == "jax":
        from feedseg.inference import loading
        from feedseg.runtime import xla

        xla.keep_programs()
        return loading.load(where, checkpoint, rounds)
    path = _paths(where)[0]
    if rounds or checkpoint != "best":
        asked = "--rounds" if rounds else "--checkpoint"
        raise UserError(f"{path}: an ONNX file is one fixed program; leave out {asked}")
    return onnx_runtime.load(path)


def for_images(
    model: Predictor, dihedral: bool = False, uncertainty: bool = False, only_labels: bool = False
) -> Predictor:
    """The model with what `feedseg.inference.predict.predict` asks for; see `loading.for_images`.

    only_labels: a model of JAX may give class ids instead of probabilities.
    Raises UserError if it cannot do what is asked for.
    """
    if not isinstance(model, onnx_runtime.OnnxPredictor):
        from feedseg.inference import loading

        return loading.for_images(model, dihedral, uncertainty, only_labels)
    if uncertainty and not dihedral:
        raise UserError("an ONNX file gives one answer only; add --dihedral")
    return onnx_runtime.dihedral_mean(model, uncertainty) if dihedral else model


def choose(where: Where, backend: str = "") -> str:
    """The backend for these models. Raises UserError if they are not for the one asked for."""
    if backend and backend not in BACKENDS:
        raise UserError(f"--backend {backend}: choose {' or '.join(BACKENDS)}")
    paths = _paths(where)
    files = [path for path in paths if path.suffix.lower() == onnx_runtime.SUFFIX]
    if files and len(paths) > 1:
        raise UserError(f"{files[0]}: averaged are runs and model files; export what they make")
    if files and backend == "jax":
        raise UserError(f"{files[0]}: an ONNX file, which JAX does not run; leave out --backend")
    if backend == "onnx" and not files:
        raise UserError(
            f"{paths[0]}: --backend onnx takes ONNX files; make one on a computer that has JAX: "
            f"feedseg export {paths[0]} --to {paths[0].name.partition('.')[0]}.onnx"
        )
    return "onnx" if files else "jax"


def _paths(where: Where) -> list[Path]:
    return [Path(where)] if isinstance(where, str | Path) else [Path(each) for each in where]
