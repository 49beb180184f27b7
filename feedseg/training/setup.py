"""Setting up a run: data on the device, the network, compiled steps, the state before step 0."""

import functools
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from feedseg import datasets, models
from feedseg.datasets.common import splits
from feedseg.datasets.common.dataset import Dataset
from feedseg.datasets.common.facts import describe
from feedseg.runs import config as configs
from feedseg.runs.checkpoint import saved_steps
from feedseg.runs.directory import RunDir
from feedseg.runtime import mesh as meshes
from feedseg.runtime import xla
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.runtime.rounding import round_up
from feedseg.training import crops, finetune, losses, optimizer, parts, pretrained
from feedseg.training import step as steps


class StepPlan(NamedTuple):
    """How a training is cut into steps; batch sizes are of all devices together."""

    batch: int
    eval_batch: int
    per_epoch: int  # steps
    per_dispatch: int  # steps of one program
    total: int  # steps


@dataclass
class Setup:
    """What stays the same during a run."""

    config: Any
    directory: RunDir
    dataset: Dataset
    split: splits.Split
    model: nn.Module
    parameters: int
    mesh: meshes.Mesh
    plan: StepPlan
    train_items: steps.TrainItems | crops.CropItems
    test: parts.Part
    val_items: steps.Items
    step: Any  # (state, items) -> (state, loss), not compiled
    eval_step: Any
    schedule: Any  # step -> learning rate
    log: Log


def set_up(
    config, directory: RunDir, log: Log, mesh: meshes.Mesh | None = None
) -> tuple[Setup, steps.TrainState]:
    """Data on the device, compiled steps and the state before step 0.

    mesh: instead of the one that the configuration asks for.
    """
    # Devices
    configs.check(config)
    pretrained.check(config.train.pretrained)
    runtime, sizes = config.runtime, config.train
    mesh = mesh or meshes.make_mesh(runtime.devices, sizes.batch_size, runtime.require_gpu)
    log(f"device: {meshes.describe(mesh)}")

    # Data
    dataset = datasets.load(config)
    split = splits.split(dataset, config.split)
    check_membrane(dataset, config.evaluate.membrane)
    log(describe_data(dataset, split))
    model = models.build(dataset.num_classes, config.model)
    plan = plan_steps(config, dataset, split, model, mesh.size)

    # Network, optimizer, steps
    rate = optimizer.schedule(config.optimizer, plan.per_epoch, sizes.epochs)
    update = optimizer.build(config.optimizer, rate)
    shard = meshes.batch_placer(mesh)
    step = steps.make_train_step(model, update, config, plan.per_epoch, plan.batch, shard)
    state = initial_state(config, model, update, dataset, mesh)
    if config.train.start and not saved_steps(directory.checkpoints):
        state = trained_state(config, state, dataset, mesh, log)
    parameters = models.count_parameters(state.params)
    log(f"network: {config.model.name}, {parameters:,} parameters")
    directory.claim(config, describe(dataset, config.data))

    setup = Setup(
        config=config,
        directory=directory,
        dataset=dataset,
        split=split,
        model=model,
        parameters=parameters,
        mesh=mesh,
        plan=plan,
        train_items=place_train_items(mesh, dataset, split.train, config),
        test=parts.part(dataset, split.test, model),
        val_items=place_items(mesh, parts.part(dataset, split.val, model)),
        step=step if plan.per_dispatch == 1 else steps.repeat(step, plan.per_dispatch),
        eval_step=compiled_eval(
            mesh, config.model.to_json(), sizes.compute_dtype, dataset.num_classes, parameters
        ),
        schedule=rate,
        log=log,
    )
    return setup, state


def plan_steps(config, dataset: Dataset, split: splits.Split, model, devices: int) -> StepPlan:
    """The steps of a training on these images and so many devices.

    Raises UserError if a batch of all images does not divide by the devices, or a program of
    several steps does not fit an epoch.
    """
    images, batch = len(split.train), config.train.batch_size
    if dataset.crop:
        trained = sum(dataset.labels[item].size for item in split.train)
        validated = parts.pixels(dataset, split.val, model)
        per_epoch = crops.steps_per_epoch(trained, validated, dataset.crop, batch)
    else:
        batch = min(batch, images)
        per_epoch = images // batch
    if batch % devices:  # a smaller batch would make the result depend on the devices
        raise UserError(
            f"batches of all {batch} training images do not divide by {devices} devices: set "
            f"runtime.devices=1 or train.batch_size to a multiple of {devices}"
        )
    dispatch = config.runtime.steps_per_dispatch or per_epoch
    if per_epoch % dispatch:
        raise UserError(
            f"runtime.steps_per_dispatch={dispatch} does not divide an epoch of {per_epoch} steps"
        )
    eval_batch = round_up(config.train.eval_batch_size, devices)
    return StepPlan(batch, eval_batch, per_epoch, dispatch, config.train.epochs * per_epoch)


def check_membrane(dataset: Dataset, membrane: str) -> None:
    """Raises UserError unless the name is empty or that of a class."""
    if membrane and membrane not in dataset.class_names:
        names = ", ".join(dataset.class_names)
        raise UserError(f"evaluate.membrane={membrane!r}: the classes are {names}")


@functools.lru_cache(maxsize=8)
def compiled_eval(mesh, network: str, dtype: str, num_classes: int, parameters: int):
    """The evaluation step, one for all runs of a network; network: `config.model` as JSON."""
    model = models.build(num_classes, configs.from_plain(json.loads(network)))
    shard = meshes.batch_placer(mesh)
    step = steps.make_eval_step(model, dtype, num_classes, shard)
    return meshes.compile_eval(mesh, step, xla.options(parameters))


def initial_state(config, model, tx, dataset: Dataset, mesh) -> steps.TrainState:
    """State before step 0 on the mesh; an illegal image size or argument is the user's error."""
    shape = (1, *dataset.input_px, dataset.images[0].shape[-1])
    try:
        terms = config.loss.terms.to_dict()
        averaged = config.train.ema_decay > 0
        state = steps.init_state(
            model, tx, shape, terms, config.seed, tuple(dataset.maps), averaged
        )
    except ValueError as error:
        raise UserError(f"config.model or data.crop_size: {error}") from None
    if config.train.pretrained:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        state = state.replace(**pretrained.merge_densenet121(variables, config.train.pretrained))
        state = steps.with_averages(state) if averaged else state
    return meshes.put(mesh, state)


def trained_state(config, state: steps.TrainState, dataset, mesh, log: Log) -> steps.TrainState:
    """The state with the weights of the model that the training begins with (`train.start`)."""
    facts = {
        "class_names": list(dataset.class_names),
        "channels": dataset.images[0].shape[-1],
        "size_px": list(dataset.input_px),
    }
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    begun = finetune.start(config.train.start, variables, config.model.to_dict(), facts)
    log(begun.said)
    state = state.replace(**{"batch_stats": {}, **begun.variables})
    return meshes.put(mesh, steps.with_averages(state) if state.average else state)


def place_items(mesh, part: parts.Part) -> steps.Items:
    """A part on the devices, as stored (8 or 16 bit)."""
    return meshes.put(mesh, steps.Items(*_fields(part.dataset, part.index)))


def place_train_items(mesh, dataset: Dataset, index: np.ndarray, config):
    """The training split on the devices."""
    labels = [dataset.labels[item] for item in index]
    weights = losses.class_weights(labels, dataset.num_classes, config.loss.class_weight)
    if dataset.crop:
        share = config.data.class_share
        return meshes.put(mesh, crops.items(dataset, index, config.seed, weights, share))
    own = dict(seed=np.int32(config.seed), class_weights=np.asarray(weights, np.float32))
    return meshes.put(mesh, steps.TrainItems(*_fields(dataset, index), **own))


def _fields(dataset: Dataset, index: np.ndarray) -> tuple:
    fields = (dataset.images, dataset.labels, dataset.low, dataset.high, dataset.maps)
    return jax.tree.map(lambda field: field[index], fields)


def describe_data(dataset: Dataset, split: splits.Split) -> str:
    """One line each for the images and the classes."""
    first = dataset.images[0]
    sides = " x ".join(
        str(min(n)) if min(n) == max(n) else f"{min(n)}-{max(n)}"
        for n in zip(*(label.shape for label in dataset.labels), strict=True)
    )
    cut = f", random crops of {dataset.crop} px" if dataset.crop else ""
    fractions = ", ".join(
        f"{name} {100 * fraction:.1f} %"
        for name, fraction in zip(dataset.class_names, dataset.class_fractions(), strict=True)
    )
    return (
        f"data: {dataset.name}, {len(dataset.labels)} images {sides} x {first.shape[-1]} "
        f"{first.dtype}, {len(split.train)} train / {len(split.val)} validation / "
        f"{len(split.test)} test{cut}\nclasses: {fractions}"
    )
