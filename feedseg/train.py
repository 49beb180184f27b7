"""Training: the loop, from a config to a finished run directory. Read this file first.

A run is an idempotent command: started again it continues, bit for bit on one device, or, when
finished, only shows its result.
"""

import time
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from feedseg import atomic, datasets, evaluate, parallel, rundir, signals
from feedseg import step as steps
from feedseg.checkpoint import Checkpoints
from feedseg.errors import Diverged, Stopped, UserError
from feedseg.finish import finish, show
from feedseg.job import Job, set_up
from feedseg.lock import WorkdirLock
from feedseg.logs import Log, Progress

_all_finite = jax.jit(steps.finite)
_IN_FLIGHT = 2  # dispatched programs that may wait on the device before the host looks at one


def run(config, workdir: Path, log: Log) -> dict:
    """Train, evaluate and write the result; returns the content of result.json.

    Raises FeedsegError with the exit code of its kind.
    """
    directory = rundir.RunDir(workdir)
    directory.check(config)
    if not directory.finished():
        datasets.find_root(config.data.name, config.data_dir)
    with WorkdirLock(directory.path), signals.Stop(jax.process_count()) as stop:
        done = directory.finished()
        if done:
            log(f"{directory.path} is finished")
            show(done, log)
            return done
        log.keep_in(directory.path / "log.txt")

        # Set up -----------------------------------------------------------------------------
        job, state = set_up(config, directory, log)

        with (
            Checkpoints(directory.checkpoints, keep=2) as latest,
            Checkpoints(directory.best, keep=1) as best,
        ):
            # Restore ------------------------------------------------------------------------
            state, meta = restore(job, state, latest)

            # Train --------------------------------------------------------------------------
            state, meta = train(job, state, meta, latest, best, stop)

            # Evaluate and save --------------------------------------------------------------
            result = finish(job, state, meta, best)
        show(result, log)
        return result


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
