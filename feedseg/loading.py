"""Trained models from where they lie: a run directory, a model file, or those that come along."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from feedseg import box, package, trained
from feedseg import config as configs
from feedseg.errors import UserError
from feedseg.rundir import RunDir, read_json
from feedseg.trained import Parts, Trained

TEST_SIDE = 64  # px, at least, of the image that proves a model
TOLERANCE = 1e-3  # of a probability, between devices and versions of the compiler


def load(where: str | Path, checkpoint: str = "best", rounds: int = 0) -> Trained:
    """The model of a run directory, of a `.feedseg.zip` file, or one that comes with feedseg.

    where: a path, or a name of `feedseg models`. checkpoint, rounds: as in `trained.load_run`.
    Raises UserError if there is no such model or it is damaged.
    """
    path = box.find(where)
    if not package.is_package(path):
        return trained.load_run(path, checkpoint, rounds)
    if checkpoint != "best":
        raise UserError(f"{path}: a model file holds the best checkpoint only, not {checkpoint!r}")
    return trained.assemble(_parts(package.read(path)), path, rounds)


def for_images(model: Trained, dihedral: bool = False, uncertainty: bool = False) -> Trained:
    """The model as tiles of images need it, with what is asked for on top (`predict.predict`)."""
    model = trained.for_tiles(model)
    if dihedral:
        model = trained.dihedral_mean(model)
    return trained.with_disagreement(model) if uncertainty else model


def export(
    run: Path, to: Path, card: dict, *, checkpoint: str = "best", overwrite: bool = False
) -> Path:
    """Write the model of a run as one file; returns its path.

    card: what people should know, see `package.manifest`. The scores are those of result.json,
    where the run is finished and its best checkpoint is asked for.
    Raises UserError if the run has no whole model, `to` exists, or it cannot be written.
    """
    to = Path(to)
    if not to.name.endswith(box.SUFFIX):
        raise UserError(f"{to}: a model file ends in {box.SUFFIX}")
    if to.exists() and not overwrite:
        raise UserError(f"{to}: exists; add --overwrite or choose another name")
    parts = trained.read_run(Path(run), checkpoint)
    model = trained.assemble(parts, Path(run))
    image = test_image(model)
    described = package.manifest(
        parts.settings,
        parts.dtype,
        parts.facts,
        card=card,
        scores=_scores(Path(run)) if checkpoint == "best" else {},
    )

    def prove(file: Path) -> None:
        if (off := verify(file)) > TOLERANCE:
            raise UserError(f"{to}: read again it gives other probabilities, {off:.3g} off")

    answer = np.asarray(model.apply(image))
    package.write(to, described, parts.variables, image, answer, prove)
    return to


def verify(path: Path) -> float:
    """How far the probabilities of a model file's test image are from those stored in it."""
    content = package.read(path)
    model = trained.assemble(_parts(content), path)
    found = np.asarray(model.apply(jnp.asarray(content.test_input)))
    if found.shape != content.test_output.shape:
        raise UserError(f"{path}: its expected output has another shape; export the model again")
    return float(np.abs(found - content.test_output).max())


def test_image(model: Trained) -> np.ndarray:
    """A smooth random image that the model takes, [1, H, W, C] float32 in [0, 1]."""
    side = model.window or -(-TEST_SIDE // model.stride) * model.stride
    y, x = np.mgrid[:side, :side] / side
    rng = np.random.default_rng(0)
    waves = rng.uniform(-8, 8, (model.channels, 12, 2)) * np.pi
    phases = rng.uniform(0, 2 * np.pi, (model.channels, 12))
    planes = [
        sum(np.sin(a * y + b * x + p) for (a, b), p in zip(w, phase, strict=True))
        for w, phase in zip(waves, phases, strict=True)
    ]
    return np.clip(0.5 + np.stack(planes, -1) / 12, 0, 1)[None].astype(np.float32)


def _parts(content: package.Package) -> Parts:
    described = content.manifest
    settings = configs.from_plain(described["network"]).to_dict()
    return Parts(settings, content.variables, described["compute_dtype"], described["facts"])


def _scores(run: Path) -> dict:
    """Scores of a finished run on its own test part."""
    result = RunDir(run).result
    return read_json(result)["metrics"] if result.exists() else {}
