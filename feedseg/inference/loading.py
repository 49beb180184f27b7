"""Trained models from a run directory, a model file, or the bundled ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from feedseg.inference import bundled, ensemble, model_file, trained
from feedseg.inference import example as examples
from feedseg.inference.trained import JaxPredictor, ModelParts
from feedseg.runs import config as configs
from feedseg.runs.directory import RunDir
from feedseg.runtime.errors import UserError
from feedseg.runtime.output_lock import hold_file
from feedseg.runtime.rounding import round_up

TEST_SIDE = 64  # px, at least, of the image that proves a model
TOLERANCE = 1e-3  # of a probability, between devices and versions of the compiler


Where = str | Path | Sequence[str | Path]


def load(where: Where, checkpoint: str = "best", rounds: int = 0) -> JaxPredictor:
    """The model of a run directory, of a `.feedseg.zip` file, or one that comes with feedseg.

    where: a path, or a name of `feedseg models`; of several the probabilities are averaged.
    checkpoint, rounds: as in `trained.load_run`.
    Raises UserError if there is no such model, it is damaged, or two of several do not fit.
    """
    if not isinstance(where, str | Path):
        each = [load(model, checkpoint, rounds) for model in where]
        return each[0] if len(each) == 1 else ensemble.together(each, where)
    path = bundled.find(where)
    if not model_file.is_package(path):
        return trained.load_run(path, checkpoint, rounds)
    if checkpoint != "best":
        raise UserError(f"{path}: a model file holds the best checkpoint only, not {checkpoint!r}")
    return _assembled(model_file.read(path), path, rounds)


def parts(where: str | Path) -> ModelParts:
    """What the model of a run, a model file or one of the bundled ones is made of.

    Raises UserError as `load`, and for an ensemble.
    """
    path = bundled.find(where)
    if not model_file.is_package(path):
        return trained.read_run(path)
    content = model_file.read(path)
    if content.members:
        raise UserError(f"{path}: is an ensemble; name one of its members")
    return _parts(content)


def for_images(
    model: JaxPredictor,
    dihedral: bool = False,
    uncertainty: bool = False,
    only_labels: bool = False,
) -> JaxPredictor:
    """The model as tiles of images need it, with what is asked for on top (`predict.predict`).

    only_labels: nothing but class ids is needed of it; windows that are blended need more.
    """
    model = trained.for_tiles(model)
    if dihedral:
        model = trained.dihedral_mean(model)
    if uncertainty:
        model = trained.with_disagreement(model)
    return trained.only_labels(model) if only_labels and not model.window else model


def export(
    run: Path,
    to: Path,
    card: dict,
    *,
    example: Path | None = None,
    checkpoint: str = "best",
    overwrite: bool = False,
) -> Path:
    """Write the model of a run as one file; returns its path.

    card: what people should know, see `model_file.manifest`. example: an image file whose middle
    proves the model and is its picture; without one, waves. The scores are those of result.json,
    where the run is finished and its best checkpoint is asked for.
    Raises UserError if the run has no whole model or `to` exists, SaveFailed if it cannot be
    written.
    """
    with target(to, overwrite) as to:
        _export(Path(run), to, card, example, checkpoint)
    return to


def _export(run: Path, to: Path, card: dict, example: Path | None, checkpoint: str) -> None:
    parts = trained.read_run(run, checkpoint)
    model = trained.assemble(parts, run)
    image = examples.crop(model, Path(example)) if example else test_image(model)
    described = model_file.manifest(
        parts.settings,
        parts.dtype,
        parts.facts,
        card=card,
        scores=_scores(run) if checkpoint == "best" else {},
    )

    answer = examples.rounded(model.apply(image))
    model_file.write(to, described, parts.variables, image, answer, proof(to))


@contextmanager
def target(
    to: Path, overwrite: bool, suffixes: tuple[str, ...] = (bundled.SUFFIX,)
) -> Iterator[Path]:
    """The path of a model file that is written inside, by this process alone.

    Raises UserError if it cannot have this name, InUse if another command writes it.
    """
    to = Path(to)
    if not to.name.endswith(suffixes):
        raise UserError(f"{to}: a model file ends in {', '.join(suffixes)}")
    with hold_file(to):
        if to.exists() and not overwrite:
            raise UserError(f"{to}: exists; add --overwrite or choose another name")
        yield to


def proof(to: Path) -> Callable[[Path], None]:
    """A check of the file that is to become `to`: UserError if it is not the model it was."""

    def prove(file: Path) -> None:
        if not (off := verify(file)) <= TOLERANCE:
            raise UserError(f"{to}: read again it gives other probabilities, {off:.3g} off")

    return prove


def verify(path: Path) -> float:
    """How far the probabilities of a model file's test image are from those stored in it."""
    content = model_file.read(path)
    model, image = _assembled(content, path), content.test_input
    sides = set(image.shape[1:3])
    unfit = sides != {model.window} if model.window else any(n % model.stride for n in sides)
    if unfit or image.shape[3] != model.channels * max(1, len(model.contracts)):
        raise UserError(f"{path}: its test image is not for this network; export the model again")
    return float(np.abs(np.asarray(model.apply(jnp.asarray(image))) - content.test_output).max())


def test_image(model: JaxPredictor) -> np.ndarray:
    """A smooth random image that the model takes, [1, H, W, C] float32 in [0, 1]."""
    side = model.window or round_up(TEST_SIDE, model.stride)
    y, x = np.mgrid[:side, :side] / side
    rng, channels = np.random.default_rng(0), model.channels * max(1, len(model.contracts))
    waves = rng.uniform(-8, 8, (channels, 12, 2)) * np.pi
    phases = rng.uniform(0, 2 * np.pi, (channels, 12))
    planes = [
        sum(np.sin(a * y + b * x + p) for (a, b), p in zip(w, phase, strict=True))
        for w, phase in zip(waves, phases, strict=True)
    ]
    return np.clip(0.5 + np.stack(planes, -1) / 12, 0, 1)[None].astype(np.float32)


def _assembled(content: model_file.Package, where: Path, rounds: int = 0) -> JaxPredictor:
    """The model in a package; UserError as in `trained.assemble`."""
    if not content.members:
        return trained.assemble(_parts(content), where, rounds)
    settings, weights = content.manifest["network"], content.variables["params"].get("weights")
    if np.shape(weights) != (len(content.members),) or settings["rule"] not in ensemble.RULES:
        raise UserError(f"{where}: is no ensemble that this feedseg knows; make it again")
    names = [f"{where} {name}" for name in settings["members"]]
    members = [
        _assembled(member, Path(name), rounds)
        for member, name in zip(content.members, names, strict=True)
    ]
    return ensemble.together(members, names, settings["rule"], weights)


def _parts(content: model_file.Package) -> ModelParts:
    described = content.manifest
    settings = configs.from_plain(described["network"]).to_dict()
    return ModelParts(settings, content.variables, described["compute_dtype"], described["facts"])


def _scores(run: Path) -> dict:
    """Scores of a finished run on its own test part."""
    result = RunDir(run).finished()
    return result["metrics"] if result else {}
