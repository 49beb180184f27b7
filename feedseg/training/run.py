"""One run from its beginning to its result: what is restored, scored, kept and written of it."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg import datasets
from feedseg.evaluation import test_split
from feedseg.runs import directory as rundir
from feedseg.runs import heartbeat
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runs.heartbeat import Heartbeat
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime import files
from feedseg.runtime import mesh as parallel
from feedseg.runtime.errors import Diverged, FeedsegError, UserError
from feedseg.runtime.logs import Log, Progress
from feedseg.training import step as steps
from feedseg.training.result import finish, show
from feedseg.training.setup import Setup, set_up

_all_finite = jax.jit(steps.finite)


class RunSpec(NamedTuple):
    """A run to be made."""

    config: Any
    workdir: Path
    log: Log


@dataclass
class TrainingRun:
    """A run that is being made. meta: notes on its best epoch and its time."""

    job: Setup
    state: Any
    meta: dict
    latest: Checkpoints
    best: Checkpoints
    progress: Progress
    pulse: Heartbeat
    begun: float = 0.0  # when its epoch began
    error: FeedsegError | None = None

    def fail(self, error: FeedsegError) -> None:
        """The run is given up; others of its program go on."""
        self.error = error
        self.pulse.end(error)


def begin(order: RunSpec, held: ExitStack, mesh) -> TrainingRun | dict:
    """A run at its newest step, its directory locked; the result of one that is finished."""
    config, log = order.config, order.log
    directory = rundir.RunDir(order.workdir)
    directory.check(config)
    if not directory.finished():
        datasets.find_root(config.data.name, config.data_dir)
    held.enter_context(WorkdirLock(directory.path))
    if done := directory.finished():
        log(f"{directory.path} is finished")
        show(done, log)
        return done
    log.keep_in(directory.path / "log.txt")
    job, state = set_up(config, directory, log, mesh)
    latest = held.enter_context(Checkpoints(directory.checkpoints, keep=2))
    best = held.enter_context(Checkpoints(directory.best, keep=1))
    state, meta = restore(job, state, latest)
    shown = Progress(job.total_steps, int(state.step), job.batch, config.runtime.progress)
    pulse = held.enter_context(Heartbeat(directory.path / heartbeat.NAME, job.total_steps))
    return TrainingRun(job, state, meta, latest, best, shown, pulse)


def end(course: TrainingRun) -> dict | FeedsegError:
    """The result of a run whose last step is done, or why it has none."""
    try:
        if not course.error:
            result = finish(course.job, course.state, course.meta, course.best)
            course.pulse.end(None)
            show(result, course.job.log)
            return result
    except FeedsegError as error:
        course.fail(error)
    return course.error


def restore(job: Setup, state, latest: Checkpoints) -> tuple[steps.TrainState, dict]:
    """The newest whole state with its notes, or the given one; metrics.jsonl is cut to match."""
    meta = {"best_miou": -1.0, "best_epoch": 0, "seconds": 0.0, "together": 1}
    whole = parallel.replicated(job.mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state.__dict__
    )
    found = latest.restore_latest(abstract)
    if found:
        step, tree, notes = found
        meta |= notes
        state = steps.TrainState(**tree)
        if step % job.steps_per_dispatch:
            raise UserError(
                f"runtime.steps_per_dispatch={job.config.runtime.steps_per_dispatch}: this run "
                f"continues at step {step}, which {job.steps_per_dispatch} does not divide; take 1"
            )
        job.log(f"continuing at step {step} of {job.total_steps}")
    epochs = int(state.step) // job.steps_per_epoch
    files.truncate_jsonl(job.directory.metrics, lambda row: row["epoch"] <= epochs)
    return state, meta


# Epochs ---------------------------------------------------------------------------------------


def close(course: TrainingRun, step: int, epoch_ends: bool, stopping: bool) -> None:
    """Scores of an epoch, its best checkpoint, and a checkpoint if one is due."""
    job, last = course.job, step == course.job.total_steps
    check_finite(course)  # what is saved is good
    due = stopping or last
    if epoch_ends:
        seconds, course.begun = time.monotonic() - course.begun, time.monotonic()
        row = end_of_epoch(job, course.state, step)
        course.meta = keep_best(course.best, course.state, step, row, course.meta)
        course.meta["seconds"] += seconds + time.monotonic() - course.begun
        course.begun = time.monotonic()
        course.progress.validated(row["val/miou"])
        job.directory.append(row)
        job.log(epoch_line(job, row, seconds))
        due |= row["epoch"] % job.config.train.save_every_epochs == 0
    if due:
        course.latest.save(step, dict(course.state.__dict__), course.meta, final=stopping or last)


def check_finite(course: TrainingRun) -> None:
    """Raises Diverged if a loss of this epoch, a parameter or a statistic is not finite."""
    state = course.state
    finite = _all_finite((state.params, state.batch_stats))
    if int(state.totals["bad_step"]) >= 0 or not finite:
        raise diverged(course, state)


def diverged(course: TrainingRun, state) -> Diverged:
    """The error for numbers that are not finite: the step, its images, the checkpoint kept."""
    job, latest = course.job, course.latest
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


def end_of_epoch(job: Setup, state, step: int) -> dict:
    """The epoch's row for metrics.jsonl: mean losses, validation scores, learning rate."""
    totals = jax.device_get(state.totals)
    totals.pop("bad_step")
    means = {
        name if name == "loss" else f"loss/{name}": float(value) / job.steps_per_epoch
        for name, value in totals.items()
    }
    matrices = test_split.confusion_matrices(
        job.eval_step, state.variables(), job.val_items, job.eval_batch
    )
    scores = test_split.summaries(matrices, job.dataset.class_names)
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
    best.save(step, state.variables(), notes, final=True)
    return {**meta, "best_miou": row["val/miou"], "best_epoch": row["epoch"]}


def epoch_line(job: Setup, row: dict, seconds: float) -> str:
    """The epoch in one line, with speed and time left."""
    left = (job.config.train.epochs - row["epoch"]) * seconds
    speed = job.steps_per_epoch * job.batch / seconds
    return (
        f"epoch {row['epoch']}/{job.config.train.epochs}  loss {row['loss']:.4f}  "
        f"val mIoU {100 * row['val/miou']:.2f}  {speed:.1f} images/s  {left / 60:.1f} min left"
    )
