"""One run between its steps: what is restored, kept as the best and refused as not finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.runs.checkpoint import Checkpoints
from feedseg.runs.heartbeat import Heartbeat
from feedseg.runtime import files, mesh
from feedseg.runtime.errors import Diverged, FeedsegError, UserError
from feedseg.runtime.logs import Log, Progress
from feedseg.training import step as steps
from feedseg.training.setup import Setup

_all_finite = jax.jit(steps.finite)


class RunSpec(NamedTuple):
    """A run to make."""

    config: Any
    workdir: Path
    log: Log


@dataclass
class TrainingRun:
    """A run in progress. meta: notes on its best epoch and its time."""

    setup: Setup
    state: steps.TrainState
    meta: dict
    latest: Checkpoints
    best: Checkpoints
    progress: Progress
    heartbeat: Heartbeat
    begun: float = 0.0  # when its epoch began
    error: FeedsegError | None = None

    def fail(self, error: FeedsegError) -> None:
        """The run ends here; others of its program go on."""
        self.error = error
        self.heartbeat.end(error)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A FeedsegError inside ends this run alone."""
        try:
            yield
        except FeedsegError as error:
            self.fail(error)


def restore(
    setup: Setup, state: steps.TrainState, latest: Checkpoints
) -> tuple[steps.TrainState, dict]:
    """The newest intact checkpoint with its notes, else the given state; cuts metrics.jsonl to it.

    Raises UserError if a program of several steps cannot continue from that step.
    """
    meta = {"best_miou": -1.0, "best_epoch": 0, "seconds": 0.0, "together": 1}
    plan = setup.plan
    newest = latest.restore_latest(mesh.abstract(setup.mesh, state.__dict__))
    if newest:
        step, tree, notes = newest
        meta |= notes
        state = steps.TrainState(**tree)
        if step % plan.per_dispatch:
            raise UserError(
                f"runtime.steps_per_dispatch={setup.config.runtime.steps_per_dispatch}: this run "
                f"continues at step {step}, which {plan.per_dispatch} does not divide; take 1"
            )
        setup.log(f"continuing at step {step} of {plan.total}")
    epochs = int(state.step) // plan.per_epoch
    files.truncate_jsonl(setup.directory.metrics, lambda row: row["epoch"] <= epochs)
    return state, meta


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
    index = steps.batch_index(
        steps.order_key(setup.config.seed),
        jnp.int32(bad),
        len(setup.split.train),
        setup.plan.batch,
    )
    names = [setup.dataset.item_names[i] for i in setup.split.train[np.asarray(index)]]
    latest.wait()  # the newest may still be on its way to the disk
    kept = latest.steps()
    last = f"{latest.folder / str(kept[-1])} is kept" if kept else "none was saved before"
    return Diverged(
        f"the loss or the parameters became NaN or infinite at step {bad} (images "
        f"{', '.join(names)}); last good checkpoint: {last}; lower optimizer.learning_rate or set "
        "optimizer.clip_norm"
    )


def keep_best(best: Checkpoints, state: steps.TrainState, step: int, row: dict, meta: dict) -> dict:
    """Save the variables if the validation mean IoU is the highest yet; a later equal one wins.

    Waits until they are on the disk: a state saved after it may rely on them.
    """
    if not row["val/miou"] >= meta["best_miou"]:
        return dict(meta)
    notes = {"epoch": row["epoch"], "val/miou": row["val/miou"]}
    best.save(step, state.variables(), notes, final=True)
    return {**meta, "best_miou": row["val/miou"], "best_epoch": row["epoch"]}
