"""Training: the loop, from a config to a finished run directory. Read this file first.

A run is an idempotent command: started again it continues, bit for bit on one device, or, when
finished, only shows its result.
"""

import platform
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import feedseg
from feedseg import (
    atomic,
    datasets,
    evaluate,
    figures,
    losses,
    metrics,
    models,
    optimizer,
    parallel,
    report,
    rundir,
    signals,
)
from feedseg import config as configs
from feedseg import panel as panels
from feedseg import step as steps
from feedseg.checkpoint import Checkpoints
from feedseg.datasets import folds
from feedseg.datasets.base import Dataset
from feedseg.errors import Diverged, Stopped, UserError
from feedseg.lock import WorkdirLock
from feedseg.logs import Log, Progress
from feedseg.trained import Trained, bind

Tree = Any
_all_finite = jax.jit(steps.finite)
_IN_FLIGHT = 2  # dispatched programs that may wait on the device before the host looks at one


@dataclass
class Job:
    """What stays the same during a run."""

    config: Any
    directory: rundir.RunDir
    dataset: Dataset
    split: folds.Split
    model: Any
    mesh: Any
    train_items: steps.Items
    val_items: steps.Items
    train_step: Any
    eval_step: Any
    schedule: Any
    batch: int
    eval_batch: int
    steps_per_epoch: int
    steps_per_dispatch: int
    log: Log

    @property
    def total_steps(self) -> int:
        return self.config.train.epochs * self.steps_per_epoch


def run(config, workdir: Path, log: Log) -> dict:
    """Train, evaluate and write the result; returns the content of result.json.

    Raises FeedsegError with the exit code of its kind.
    """
    directory = rundir.RunDir(workdir)
    directory.check(config)
    if not directory.finished():
        datasets.find_root(config.data.name, config.data_dir)
    with WorkdirLock(directory.path):
        done = directory.finished()
        if done:
            log(f"{directory.path} is finished")
            show(done, log)
            return done
        log.keep_in(directory.path / "log.txt")

        # Set up -----------------------------------------------------------------------------
        job, state = set_up(config, directory, log)

        # Restore ----------------------------------------------------------------------------
        with (
            Checkpoints(directory.checkpoints, keep=2) as latest,
            Checkpoints(directory.best, keep=1) as best,
        ):
            state, meta = restore(job, state, latest)

            # Train --------------------------------------------------------------------------
            with signals.Stop(jax.process_count()) as stop:
                state, meta = train(job, state, meta, latest, best, stop)

            # Evaluate and save --------------------------------------------------------------
            result = finish(job, state, meta, best)
        show(result, log)
        return result


# Set up ---------------------------------------------------------------------------------------


def set_up(config, directory: rundir.RunDir, log: Log) -> tuple[Job, steps.TrainState]:
    """Data on the device, compiled steps and the state before step 0."""
    mesh = parallel.make_mesh(
        config.runtime.devices, config.train.batch_size, config.runtime.require_gpu
    )
    log(f"device: {parallel.describe(mesh)}")
    dataset = datasets.load(config)
    split = folds.split(dataset, config.split)
    evaluate.check_membrane(dataset, config.evaluate.membrane)
    log(describe_data(dataset, split))

    batch = min(config.train.batch_size, len(split.train))
    if batch % mesh.size:  # a smaller batch would make the result depend on the devices
        raise UserError(
            f"batches of all {batch} training images do not divide by {mesh.size} devices: set "
            f"runtime.devices=1 or train.batch_size to a multiple of {mesh.size}"
        )
    per_epoch = len(split.train) // batch
    model = models.build(dataset.num_classes, config.model)
    rate = optimizer.schedule(config.optimizer, per_epoch, config.train.epochs)
    tx = optimizer.build(config.optimizer, rate)
    weights = losses.class_weights(
        dataset.labels[split.train], dataset.num_classes, config.loss.class_weight
    )
    place = parallel.batch_placer(mesh)
    one_step = steps.make_train_step(
        model, tx, config, jnp.asarray(weights), len(split.train), batch, place
    )
    dispatch = config.runtime.steps_per_dispatch or per_epoch
    if per_epoch % dispatch:
        raise UserError(
            f"runtime.steps_per_dispatch={dispatch} does not divide an epoch of {per_epoch} steps"
        )
    state = initial_state(config, model, tx, dataset, mesh)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    log(f"network: {config.model.name}, {parameters:,} parameters")
    directory.claim(config, dataset)
    eval_batch = -(-config.train.eval_batch_size // mesh.size) * mesh.size
    job = Job(
        config=config,
        directory=directory,
        dataset=dataset,
        split=split,
        model=model,
        mesh=mesh,
        train_items=place_items(mesh, dataset, split.train),
        val_items=place_items(mesh, dataset, split.val),
        train_step=parallel.compile_train(
            mesh, one_step if dispatch == 1 else steps.repeat(one_step, dispatch)
        ),
        eval_step=parallel.compile_eval(
            mesh,
            steps.make_eval_step(model, config.train.compute_dtype, dataset.num_classes, place),
        ),
        schedule=rate,
        batch=batch,
        eval_batch=eval_batch,
        steps_per_epoch=per_epoch,
        steps_per_dispatch=dispatch,
        log=log,
    )
    return job, state


def initial_state(config, model, tx, dataset: Dataset, mesh) -> steps.TrainState:
    """State before step 0 on the mesh; an illegal image size or argument is the user's error."""
    shape = (1, *dataset.images.shape[1:])
    try:
        state = steps.init_state(model, tx, shape, config.loss.terms.to_dict(), config.seed)
    except ValueError as error:
        raise UserError(f"config.model or data.crop_size: {error}") from None
    return parallel.put(mesh, state)


def place_items(mesh, dataset: Dataset, index: np.ndarray) -> steps.Items:
    """A split on the devices, as stored (8 or 16 bit)."""
    fields = (dataset.images, dataset.labels, dataset.low, dataset.high)
    return parallel.put(mesh, steps.Items(*(field[index] for field in fields)))


def describe_data(dataset: Dataset, split: folds.Split) -> str:
    """One line each for the images and the classes."""
    count, height, width, channels = dataset.images.shape
    fractions = ", ".join(
        f"{name} {100 * fraction:.1f} %"
        for name, fraction in zip(dataset.class_names, dataset.class_fractions(), strict=True)
    )
    return (
        f"data: {dataset.name}, {count} images {height} x {width} x {channels} "
        f"{dataset.images.dtype}, {len(split.train)} train / {len(split.val)} validation / "
        f"{len(split.test)} test\nclasses: {fractions}"
    )


def restore(job: Job, state, latest: Checkpoints) -> tuple[steps.TrainState, dict]:
    """The newest whole state with its notes, or the given one; metrics.jsonl is cut to match."""
    meta = {"best_miou": -1.0, "best_epoch": 0, "seconds": 0.0}
    whole = parallel.replicated(job.mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state.__dict__
    )
    found = latest.restore_latest(abstract)
    if found:
        step, tree, meta = found
        state = steps.TrainState(**tree)
        if step % job.steps_per_dispatch:
            raise UserError(
                f"runtime.steps_per_dispatch={job.config.runtime.steps_per_dispatch}: this run "
                f"continues at step {step}, which {job.steps_per_dispatch} does not divide; take 1"
            )
        job.log(f"continuing at step {step} of {job.total_steps}")
    epochs = int(state.step) // job.steps_per_epoch
    atomic.truncate_jsonl(job.directory.metrics, lambda row: row["epoch"] <= epochs)
    return state, meta


# Train ----------------------------------------------------------------------------------------


def train(job: Job, state, meta: dict, latest: Checkpoints, best: Checkpoints, stop) -> tuple:
    """All epochs that are left. Returns the last state and the notes on the best one."""
    step = int(state.step)
    if step >= job.total_steps:
        return state, meta
    job.log("compiling the training step (once per machine and shape, up to a few minutes)")
    progress = Progress(job.total_steps, step, job.batch, job.config.runtime.progress)
    begun = time.monotonic()
    pending: deque = deque()
    while step < job.total_steps:
        state, loss = job.train_step(state, job.train_items)
        step += job.steps_per_dispatch
        pending.append(loss)
        stopping, epoch_ends = stop.requested(), step % job.steps_per_epoch == 0
        while len(pending) > (0 if stopping or epoch_ends else _IN_FLIGHT):
            progress.advance(job.steps_per_dispatch, look(job, state, pending.popleft(), latest))
        if not (stopping or epoch_ends):
            continue
        check_finite(job, state, latest)  # what is saved is good
        due = stopping or step == job.total_steps
        if epoch_ends:
            seconds, begun = time.monotonic() - begun, time.monotonic()
            row = end_of_epoch(job, state, step)
            meta = keep_best(best, state, step, row, meta)
            meta["seconds"] += seconds + time.monotonic() - begun
            begun = time.monotonic()
            progress.validated(row["val/miou"])
            job.directory.append(row)
            job.log(epoch_line(job, row, seconds))
            due |= row["epoch"] % job.config.train.save_every_epochs == 0
        if due:
            save(latest, state, step, meta, final=stopping or step == job.total_steps)
        if stopping:
            raise Stopped(
                f"stopped by {stop.signal_name or 'the scheduler'} at step {step}: run again"
            )
    progress.close()
    return state, meta


def save(latest: Checkpoints, state, step: int, meta: dict, final: bool = False) -> None:
    """The whole state, with the notes."""
    latest.save(step, dict(state.__dict__), meta, final=final)


def look(job: Job, state, loss, latest: Checkpoints) -> float:
    """A loss as a number; one that is not finite ends the run."""
    value = float(loss)
    if not np.isfinite(value):
        raise diverged(job, state, latest)
    return value


def check_finite(job: Job, state, latest: Checkpoints) -> None:
    """Raises Diverged if a loss of this epoch, a parameter or a statistic is not finite."""
    finite = _all_finite((state.params, state.batch_stats))
    if int(state.totals["bad_step"]) >= 0 or not finite:
        raise diverged(job, state, latest)


def diverged(job: Job, state, latest: Checkpoints) -> Diverged:
    """The error for numbers that are not finite: the step, its images, the checkpoint kept."""
    bad = int(state.totals["bad_step"])
    if bad < 0:  # all losses were finite, so it was the last update
        bad = int(state.step) - 1
    index = steps.batch_index(
        steps.order_key(job.config.seed), jnp.int32(bad), len(job.split.train), job.batch
    )
    names = [job.dataset.item_names[i] for i in job.split.train[np.asarray(index)]]
    latest.wait()  # the newest may still be on its way to the disk
    kept = latest.steps()
    last = f"{latest.folder / str(kept[-1])} is kept" if kept else "none was saved before"
    return Diverged(
        f"the loss or the parameters became NaN or infinite at step {bad} (images "
        f"{', '.join(names)}); last good checkpoint: {last}; lower optimizer.learning_rate or set "
        "optimizer.clip_norm"
    )


def end_of_epoch(job: Job, state, step: int) -> dict:
    """The epoch's row for metrics.jsonl: mean losses, validation scores, learning rate."""
    totals = jax.device_get(state.totals)
    totals.pop("bad_step")
    means = {
        name if name == "loss" else f"loss/{name}": float(value) / job.steps_per_epoch
        for name, value in totals.items()
    }
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    matrices = evaluate.confusion_matrices(job.eval_step, variables, job.val_items, job.eval_batch)
    scores = evaluate.summaries(matrices, job.dataset.class_names)
    row = {"epoch": step // job.steps_per_epoch, "step": step, "lr": float(job.schedule(step - 1))}
    row |= means
    row |= {f"val/{key}": value for key, value in scores.pop("final").items()}
    return row | {f"val/{name}/miou": each["miou"] for name, each in scores.items()}


def keep_best(best: Checkpoints, state, step: int, row: dict, meta: dict) -> dict:
    """Save the variables if the validation mean IoU is the highest yet; a later equal one wins.

    Waits until they are on the disk: a state saved after it may rely on them.
    """
    if not row["val/miou"] >= meta["best_miou"]:
        return dict(meta)
    notes = {"epoch": row["epoch"], "val/miou": row["val/miou"]}
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    best.save(step, variables, notes, final=True)
    return {**meta, "best_miou": row["val/miou"], "best_epoch": row["epoch"]}


def epoch_line(job: Job, row: dict, seconds: float) -> str:
    """The epoch in one line, with speed and time left."""
    left = (job.config.train.epochs - row["epoch"]) * seconds
    speed = job.steps_per_epoch * job.batch / seconds
    return (
        f"epoch {row['epoch']}/{job.config.train.epochs}  loss {row['loss']:.4f}  "
        f"val mIoU {100 * row['val/miou']:.2f}  {speed:.1f} images/s  {left / 60:.1f} min left"
    )


# Evaluate and save ----------------------------------------------------------------------------


def finish(job: Job, state, meta: dict, best: Checkpoints) -> dict:
    """Scores of the best checkpoint on the test part, figures, and result.json at the very end."""
    whole = parallel.replicated(job.mesh)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables
    )
    found = best.restore_latest(abstract)
    if not found:
        raise UserError(
            f"{best.folder}: the best checkpoint is gone; delete the run and start again"
        )
    step, variables, notes = found
    job.log(f"evaluating the best checkpoint (epoch {notes['epoch']}) on the test images")
    names = job.dataset.class_names
    facts = rundir.describe(job.dataset, job.config)
    trained = bind(job.model, variables, job.config.train.compute_dtype, facts)
    items = place_items(job.mesh, job.dataset, job.split.test)
    matrices = evaluate.confusion_matrices(job.eval_step, variables, items, job.eval_batch)
    if job.config.evaluate.dihedral:
        matrices["dihedral"] = evaluate.dihedral_matrices(
            trained, job.dataset, job.split.test, job.eval_batch
        )
    result = {
        "complete": True,
        "experiment": job.config.experiment,
        "run_name": job.config.run_name,
        "class_names": list(names),
        "metrics": evaluate.summaries(matrices, names),
        "per_image": metrics.per_image(matrices["final"], names),
        "confusion": matrices["final"].sum(0).tolist(),
        "best": {"step": step, "epoch": notes["epoch"], "val_miou": notes["val/miou"]},
        "counts": {part: len(index) for part, index in job.split._asdict().items()},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        **provenance(job, meta),
    }
    if job.config.evaluate.membrane:
        result["boundary"] = evaluate.boundary_scores(
            trained, job.dataset, job.split.test, job.config.evaluate.membrane
        )
    draw(job, trained, matrices["final"].sum(0))
    atomic.write_json_atomic(job.directory.result, result)
    return result


def provenance(job: Job, meta: dict) -> dict:
    """Where the numbers come from."""
    plain = configs.to_plain(job.config)
    return {
        "config_hash": configs.config_hash(plain),
        "data_hash": rundir.read_json(job.directory.data)["fingerprint"],
        "seed": job.config.seed,
        "version": feedseg.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": parallel.describe(job.mesh),
        "seconds": round(meta["seconds"], 1),
    }


def draw(job: Job, trained: Trained, matrix: np.ndarray) -> None:
    """Curves, confusion matrix and a panel of up to four test images."""
    path, dataset = job.directory.path, job.dataset
    figures.curves(job.directory.rows(), path / "curves.png")
    figures.confusion_figure(matrix, dataset.class_names, path / "confusion.png")
    test = job.split.test
    chosen = test[np.unique(np.linspace(0, len(test) - 1, min(4, len(test))).round().astype(int))]
    rows = evaluate.panel_rows(trained, dataset, chosen)
    panels.panel(rows, path / "panel.png", dataset.class_names, dataset.class_colors)


def show(result: dict, log: Log) -> None:
    """The result as a table."""
    counts = result["counts"]
    log(
        f"test: {counts['test']} images, best of {result['best']['epoch']} epochs by validation "
        f"mean IoU ({100 * result['best']['val_miou']:.2f})"
    )
    log(report.console_table(result["metrics"]["final"], result["class_names"]))
    if "dihedral" in result["metrics"]:
        log("the same, probabilities averaged over 8 rotations and mirrors")
        log(report.console_table(result["metrics"]["dihedral"], result["class_names"]))
    for name, value in result.get("boundary", {}).items():
        log(f"  {name:24s} " + ("-" if value is None or np.isnan(value) else f"{value:.4f}"))
