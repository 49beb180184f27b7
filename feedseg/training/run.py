"""One run between its steps: what is restored, kept as the best and refused as not finite."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.runs.checkpoint import Checkpoints
from feedseg.runs.directory import RunDir
from feedseg.runs.heartbeat import Heartbeat
from feedseg.runs.loggers import Loggers
from feedseg.runtime import files, mesh, processes
from feedseg.runtime.errors import Diverged, FeedsegError, UserError
from feedseg.runtime.logs import Log, Progress
from feedseg.training import step as steps
from feedseg.training.early_stop import Callback
from feedseg.training.setup import Setup

_all_finite = jax.jit(steps.finite)


class RunSpec(NamedTuple):
    """A run to make. callbacks: called with the row of every epoch; True ends the run."""

    config: Any
    workdir: Path
    log: Log
    callbacks: Sequence[Callback] = ()


@dataclass
class TrainingRun:
    """A run in progress. meta: notes on its best epoch, its time and its early end."""

    setup: Setup
    state: steps.TrainState
    meta: dict
    latest: Checkpoints
    best: Checkpoints
    progress: Progress
    heartbeat: Heartbeat
    loggers: Loggers
    callbacks: Sequence[Callback] = ()
    begun: float = 0.0  # when its epoch began
    error: FeedsegError | None = None
    result: dict | None = None  # once it is written

    @property
    def training(self) -> bool:
        """Whether it has neither failed nor stopped early."""
        return not self.error and not self.meta["stopped"]

    def fail(self, error: FeedsegError) -> None:
        """The run ends here; others of its program go on."""
        self.error = error
        self.heartbeat.end(error)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A FeedsegError inside ends this run alone, and so does the loss of its directory."""
        try:
            yield
        except FeedsegError as error:
            self.fail(error)
        except OSError:
            if self.setup.directory.config.exists():
                raise
            self.fail(self.setup.directory.gone())


def restore(
    setup: Setup, state: steps.TrainState, latest: Checkpoints
) -> tuple[steps.TrainState, dict]:
    """The newest intact checkpoint with its notes, else the given state; cuts metrics.jsonl to it.

    Says where rows of metrics.jsonl are missing or changed. Raises UserError if the checkpoint is
    of another run, or a program of several steps cannot continue from that step.
    """
    meta = {"best_miou": -1.0, "best_epoch": 0, "seconds": 0.0, "together": 1}
    meta |= {"waited": 0, "stopped": None, "went_on_from": []}
    plan, directory = setup.plan, setup.directory
    newest = latest.restore_latest(mesh.abstract(setup.mesh, state.__dict__))
    if newest:
        step, tree, notes = newest
        directory.require_own(latest.folder / str(step), notes)
        meta |= notes
        if epochs := directory.went_on_from(notes):
            meta |= _longer(setup, step, epochs, meta)
        state = steps.TrainState(**tree)
        if step % plan.per_dispatch:
            raise UserError(
                f"runtime.steps_per_dispatch={setup.config.runtime.steps_per_dispatch}: this run "
                f"continues at step {step}, which {plan.per_dispatch} does not divide; take 1"
            )
        setup.log(f"continuing at step {step} of {plan.total}")
    epochs = int(state.step) // plan.per_epoch
    kept = files.truncate_jsonl(directory.metrics, lambda row: row.get("epoch", 0) <= epochs)
    logged = meta.pop("log_hash", directory.log_hash())
    if kept != epochs or logged != directory.log_hash():
        setup.log(
            f"warning: {directory.metrics} is not as it was written ({kept} of {epochs} epochs): "
            "its curves are incomplete or changed; training and scores do not depend on it"
        )
    return state, meta


def _longer(setup: Setup, step: int, epochs: int, meta: dict) -> dict:
    """Changed notes of a run that goes on from the end of one of so many epochs; says so.

    Patience begins anew: it was with another learning rate.
    """
    setup.log(
        f"going on from {epochs} to {setup.config.train.epochs} epochs: the learning rate is that "
        f"of the longer run, {float(setup.schedule(step)):.3g} at step {step}; the result so far "
        f"is kept as result-of-{epochs}-epochs.json"
    )
    return {"waited": 0, "stopped": None, "went_on_from": [*meta["went_on_from"], epochs]}


def check_finite(run: TrainingRun) -> None:
    """Raises Diverged if a loss of this epoch, a parameter or a statistic is not finite."""
    state = run.state
    finite = _all_finite((state.params, state.batch_stats))
    if int(state.totals["bad_step"]) >= 0 or not finite:
        raise diverged(run, state)


def diverged(run: TrainingRun, state: steps.TrainState) -> Diverged:
    """The error for numbers that are not finite: the step, its images, the checkpoint kept."""
    setup, latest = run.setup, run.latest
    bad = int(state.totals["bad_step"])
    if bad < 0:  # all losses were finite, so it was the last update
        bad = int(state.step) - 1
    index = setup.train_items.chosen(jnp.int32(bad), setup.plan.batch)
    names = [setup.dataset.item_names[i] for i in setup.split.train[np.asarray(index)]]
    latest.wait()  # the newest may still be on its way to the disk
    kept = latest.steps()
    last = f"{latest.folder / str(kept[-1])} is kept" if kept else "none was saved before"
    return Diverged(
        f"the loss or the parameters became NaN or infinite at step {bad} (images "
        f"{', '.join(names)}); last good checkpoint: {last}; lower optimizer.learning_rate or set "
        "optimizer.clip_norm"
    )


def rescue_best(setup: Setup, state: steps.TrainState, meta: dict, best: Checkpoints) -> dict:
    """Where no best checkpoint is whole any more, the state takes its place, with a warning.

    Returns the notes on the best epoch. Raises UserError if the checkpoint is of another run.
    """
    directory, step = setup.directory, int(state.step)
    whole = best.restore_latest(mesh.abstract(setup.mesh, state.variables()))
    if whole:
        number, variables, notes = whole
        directory.require_own(best.folder / str(number), notes)
        if directory.went_on_from(notes):
            best.save(number, variables, {**notes, **directory.identity()}, final=True)
        return meta
    if not meta["best_epoch"]:
        return meta  # none was saved yet
    row = processes.from_first(_row_of, directory, step)
    row = {"epoch": step // setup.plan.per_epoch, "val/miou": row.get("val/miou")}
    setup.log(
        f"warning: {best.folder}: the best checkpoint, of epoch {meta['best_epoch']}, is gone or "
        f"damaged; the newest state, of epoch {row['epoch']}, takes its place"
    )
    return _save_best(setup, best, state, step, row, meta)


def _row_of(directory: RunDir, step: int) -> dict:
    """The row of metrics.jsonl that a step ended, empty without one."""
    return next((row for row in directory.rows() if row.get("step") == step), {})


def keep_best(
    setup: Setup, best: Checkpoints, state: steps.TrainState, step: int, row: dict, meta: dict
) -> dict:
    """Save the variables if the validation mean IoU is the highest yet; a later equal one wins.

    While no epoch has a score that is a number, the latest is kept, with a warning.
    Waits until they are on the disk: a state saved after it may rely on them.
    """
    score = row["val/miou"]
    if score >= meta["best_miou"]:
        return _save_best(setup, best, state, step, row, meta)
    if np.isfinite(score) or meta["best_miou"] >= 0:
        return dict(meta)
    if not meta["best_epoch"]:
        setup.log("warning: the validation mean IoU is no number: the latest epoch is kept as best")
    return _save_best(setup, best, state, step, row, meta)


def _save_best(
    setup: Setup, best: Checkpoints, state: steps.TrainState, step: int, row: dict, meta: dict
) -> dict:
    """The notes with this epoch as the best one, which is saved."""
    score = np.nan if row["val/miou"] is None else row["val/miou"]
    notes = {"epoch": row["epoch"], "val/miou": score, **setup.directory.identity()}
    best.save(step, state.variables(), notes, final=True)
    known = float(score) if np.isfinite(score) else -1.0
    return {**meta, "best_miou": known, "best_epoch": row["epoch"]}
