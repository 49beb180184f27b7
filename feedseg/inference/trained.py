"""A trained model, read back from its run and ready to be applied."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg import models
from feedseg.inference import facts as model_facts
from feedseg.inference import tta, uncertainty, weights
from feedseg.inference.predictor import TrainingImages
from feedseg.inference.segment import NOT_FINITE
from feedseg.runs import checkpoint_format
from feedseg.runs.checkpoint import read_tree, saved_steps
from feedseg.runs.directory import RunDir, read_json
from feedseg.runtime import xla
from feedseg.runtime.errors import UserError
from feedseg.runtime.rounding import round_up

Tree = Any


class JaxPredictor(NamedTuple):
    """A model ready to be applied, with what it needs to know about images."""

    apply: Callable[[Any], jax.Array]  # image [N, H, W, C] in [0, 1] -> probabilities [N, H, W, K]
    answers: Callable[[Any], jax.Array] | None  # image -> several of them [S, N, H, W, K]
    outputs: Callable[[Any], tuple[jax.Array, dict]]  # image -> logits and extra outputs
    stride: int
    halo: int
    window: int  # px, side of what a network of whole images must see at once; 0: any
    channels: int
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    normalization: str
    percentiles: tuple[float, float]
    # for networks of unpadded convolutions: window [N, H, W, C] -> probabilities [N, H, W, K]
    # without those of the outer `margin` pixels, which hold no result
    inside: Callable[[Any], jax.Array] | None = None
    margin: int = 0  # px, a multiple of the stride
    # of an ensemble whose members normalize differently, the rules and percentiles: the image comes
    # once by each of them, its channels one after the other
    contracts: tuple[tuple[str, tuple[float, float]], ...] = ()
    tile: int = 0  # any
    training_images: TrainingImages = TrainingImages()


def load_run(run: Path, checkpoint: str = "best", rounds: int = 0) -> JaxPredictor:
    """The model of a run directory.

    checkpoint: `best` (highest validation mean IoU) or `latest`. rounds: of a network with
    feedback, 0: as trained; more than that if its normalizations are shared by the rounds.
    Raises UserError if the folder is no run, has no whole checkpoint, the checkpoint is of another
    network, or the network cannot have so many rounds.
    """
    return assemble(read_run(run, checkpoint), _folder(run, checkpoint), rounds)


class ModelParts(NamedTuple):
    """What a trained model is made of. settings: `config.model`; facts: as in data.json."""

    settings: dict
    variables: Tree
    dtype: str
    facts: dict


def read_run(run: Path, checkpoint: str = "best") -> ModelParts:
    """The parts of a run's model; UserError as in `load_run`."""
    directory = RunDir(run)
    config = directory.stored_config()
    facts = read_json(directory.data)
    if wrong := model_facts.problem(facts, ""):
        raise UserError(f"{directory.data}: {wrong}; restore it from a copy")
    folder = _folder(run, checkpoint)
    try:
        tree, notes = read_tree(folder)
    except UserError as error:
        if checkpoint == "best" and saved_steps(directory.checkpoints):
            raise UserError(f"{error}; or take the newest one: --checkpoint latest") from None
        raise
    directory.require_own(folder, notes)
    variables = {"params": tree["params"], "batch_stats": tree.get("batch_stats", {})}
    return ModelParts(config.model.to_dict(), variables, config.train.compute_dtype, facts)


def assemble(parts: ModelParts, where: Path, rounds: int = 0) -> JaxPredictor:
    """The model of these parts, which come from `where`; rounds: as in `load_run`.

    Raises UserError if they do not fit together.
    """
    settings = dict(parts.settings)
    if rounds:
        check_rounds(where, settings, rounds)
        settings["rounds"] = max(rounds, settings["rounds"])
    wanted = weights.shapes(settings, parts.facts, where)
    have = checkpoint_format.to_flat(parts.variables)
    weights.require(where, {name: np.shape(leaf) for name, leaf in have.items()}, wanted)
    model = models.build(len(parts.facts["class_names"]), settings)
    return make_predictor(model, parts.variables, parts.dtype, parts.facts, rounds)


def read_variables(run: Path, checkpoint: str = "best") -> Tree:
    """Parameters and running statistics of a run; UserError as in `load_run`."""
    tree, _ = read_tree(_folder(run, checkpoint))
    return {"params": tree["params"], "batch_stats": tree.get("batch_stats", {})}


def _folder(run: Path, checkpoint: str) -> Path:
    directory = RunDir(run)
    folders = {"best": directory.best, "latest": directory.checkpoints}
    if checkpoint not in folders:
        raise UserError(f"checkpoint {checkpoint!r}: choose best or latest")
    return folders[checkpoint]


def check_rounds(run: Path, settings: dict, rounds: int) -> None:
    """Raises UserError unless a network with these settings can make that many rounds."""
    trained = settings.get("rounds")
    if trained is None:
        raise UserError(f"{run}: network {settings['name']} has no rounds; leave out --rounds")
    if rounds < 0:
        raise UserError(f"--rounds {rounds}: at least 1")
    if rounds > trained and settings["bn_rounds"] != "shared":
        raise UserError(
            f"{run}: trained with {trained} rounds, each with statistics of its own (bn_rounds="
            f"{settings['bn_rounds']}); {rounds} rounds need a model trained with "
            "--config.model.bn_rounds=shared"
        )


def make_predictor(
    model, variables: Tree, dtype: str, facts: dict, rounds: int = 0
) -> JaxPredictor:
    """A trained model from its parts; facts: as in data.json; rounds: stop after so many."""
    variables = jax.device_put(jax.device_get(variables))  # on a device of this process alone

    def run(variables, image):
        logits, out = models.forward(model, variables, image, jnp.dtype(dtype))
        if rounds:
            out = {**out, "rounds": out["rounds"][:rounds]}
            logits = out["rounds"][-1]
        return logits, out

    def soft(logits):
        return jax.nn.softmax(logits.astype(jnp.float32))

    options = xla.options(models.count_parameters(variables["params"]))
    jit = functools.partial(_jit, options=options)
    outputs = jit(run)
    apply = jit(lambda v, image: soft(run(v, image)[0]))
    answers = jit(lambda v, image: soft(uncertainty.answers(run(v, image)[1])))
    inside, margin = _inside(model, dtype, jit)
    image = weights.small_image(model, facts["channels"], facts["size_px"])
    several = jax.eval_shape(run, variables, image)[1]
    return JaxPredictor(
        apply=lambda image: apply(variables, image),
        answers=(lambda image: answers(variables, image))
        if uncertainty.answers(several) is not None
        else None,
        outputs=lambda image: outputs(variables, image),
        stride=model.stride,
        halo=model.halo,
        window=min(facts["size_px"]) if getattr(model, "whole_image", False) else 0,
        channels=facts["channels"],
        class_names=tuple(facts["class_names"]),
        class_colors=tuple(tuple(color) for color in facts["class_colors"]),
        normalization=facts["normalization"],
        percentiles=tuple(facts["percentiles"]),
        inside=(lambda image: inside(variables, image)) if inside else None,
        margin=margin,
        training_images=TrainingImages.of(facts),
    )


def _jit(function: Callable, options: dict) -> Callable:
    """A program of its own with these compiler options, which a part of another cannot have."""
    compiled = jax.jit(function, compiler_options=options)

    def apply(variables, image):
        traced = isinstance(image, jax.core.Tracer)
        return (function if traced else compiled)(variables, image)

    return apply


def _inside(model, dtype: str, jit: Callable) -> tuple[Callable | None, int]:
    """The network without the mirror image around what it sees, and the margin it then has."""
    lost = getattr(model, "margin", 0)
    if not lost:
        return None, 0
    bare = model.clone(border="none")
    margin = round_up(lost, model.stride)
    first = margin - lost  # on the grid of the whole image, sides are legal from here on

    def apply(variables, image):
        logits, _ = models.forward(bare, variables, image[:, first:, first:], jnp.dtype(dtype))
        around = (margin, lost)
        probability = jax.nn.softmax(logits.astype(jnp.float32))
        return jnp.pad(probability, ((0, 0), around, around, (0, 0)))

    return jit(apply), margin


def for_tiles(predictor: JaxPredictor) -> JaxPredictor:
    """The model as tiles need it: one of unpadded convolutions sees true neighbors only."""
    if not predictor.inside:
        return predictor
    return predictor._replace(apply=predictor.inside, halo=predictor.margin)


def dihedral_mean(predictor: JaxPredictor) -> JaxPredictor:
    """The same model with its probabilities averaged over 8 rotations and mirrors of the image.

        p(x) = 1/8 sum_g g^-1 q(g x)

    over the elements g of the dihedral group, q being the model's own probabilities.
    """

    def answers(image):
        return list(tta.orientations(predictor.apply, image))

    return predictor._replace(
        apply=lambda image: sum(answers(image)) / 8,
        answers=lambda image: jnp.stack(answers(image)),
    )


def with_disagreement(predictor: JaxPredictor) -> JaxPredictor:
    """The same model whose `apply` gives one channel more: how far its answers disagree, bits.

    Raises UserError if the model gives only one answer.
    """
    if predictor.answers is None:
        raise UserError(
            "this model gives one answer only, which cannot disagree; add --dihedral to compare "
            "its answers to 8 rotations and mirrors"
        )

    def apply(image):
        spread = uncertainty.disagreement(predictor.answers(image))
        return jnp.concatenate([predictor.apply(image), spread[..., None]], -1)

    return predictor._replace(apply=apply)


def only_labels(predictor: JaxPredictor) -> JaxPredictor:
    """The same model whose `apply` gives class ids, [N, H, W, 1] uint8, so that little leaves the
    device; `segment.NOT_FINITE` where the probabilities are no numbers.
    """

    @jax.jit
    def chosen(probabilities):
        whole = jnp.isfinite(probabilities).all(-1, keepdims=True)
        ids = probabilities.argmax(-1, keepdims=True)
        return jnp.where(whole, ids, NOT_FINITE).astype(jnp.uint8)

    return predictor._replace(apply=lambda image: chosen(predictor.apply(image)))
