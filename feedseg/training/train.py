"""Training, from a configuration to a finished run directory. Read this file first.

    begin        lock the run directory; devices, data, network, optimizer, compiled steps
                 (training/setup.py); the state before step 0 or the newest checkpoint
    train        step after step: forward pass, loss, gradient, update (training/step.py)
    end_epoch    validate, keep the best epoch, save a checkpoint when one is due, or stop early
                 (training/early_stop.py)
    finish       test the best epoch, write result.json, draw (training/result.py)

A run is an idempotent command: started again it continues, bit for bit on one device, or, when
finished, only shows its result; with a larger `train.epochs` it trains on (runs/longer.py). Several
runs can share one program (training/batched.py). Each keeps its own directory, checkpoints, best
epoch and result; one run is the usual group of one.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np

from feedseg import datasets
from feedseg.runs import config as configs
from feedseg.runs import loggers
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runs.directory import RunDir, read_json
from feedseg.runs.heartbeat import NAME, Heartbeat
from feedseg.runs.lock import WorkdirLock
from feedseg.runs.loggers import Loggers
from feedseg.runtime import files, notes, signals, xla
from feedseg.runtime.errors import FeedsegError, Stopped, UserError
from feedseg.runtime.logs import Log, Progress
from feedseg.training import batched, early_stop, validate
from feedseg.training.early_stop import Callback
from feedseg.training.result import FIGURES, finish, show
from feedseg.training.run import (
    RunSpec,
    TrainingRun,
    check_finite,
    diverged,
    keep_best,
    rescue_best,
    restore,
)
from feedseg.training.setup import set_up

_IN_FLIGHT = 2  # dispatched steps that may wait on the device before the host looks at a loss


def run(config, workdir: Path, log: Log, callbacks: Sequence[Callback] = ()) -> dict:
    """Train, evaluate and write the result; returns the content of result.json.

    callbacks: each is called with the row of every epoch that is trained, as metrics.jsonl holds
    it, with `images_per_s`; one that returns True ends the run, which is evaluated as always.
    Raises FeedsegError with the exit code of its kind.
    """
    (outcome,) = run_together([RunSpec(config, workdir, log, callbacks)])
    if isinstance(outcome, FeedsegError):
        raise outcome
    return outcome


@notes.fresh()
def run_together(specs: Sequence[RunSpec]) -> list[dict | FeedsegError]:
    """Several runs at once; returns the content of each one's result.json, or why it has none.

    Raises Stopped if a signal asked for it; all are saved then.
    """
    if len(specs) > 1 and jax.process_count() > 1:
        raise UserError("several runs as one program are one process: set FEEDSEG_PROCESSES=1")
    xla.keep_programs()
    meshes = [None] if len(specs) == 1 else batched.devices()
    outcomes: dict[int, dict | FeedsegError] = {}
    runs: dict[int, TrainingRun] = {}
    with ExitStack() as held, signals.Stop(jax.process_count()) as stop:
        for number, spec in enumerate(specs):
            try:
                begun = begin(spec, held, meshes[number % len(meshes)])
            except FeedsegError as error:
                begun = error
            (runs if isinstance(begun, TrainingRun) else outcomes)[number] = begun
            if isinstance(begun, TrainingRun):
                stop.farewells.append(begun.heartbeat.end)
        for group in batched.groups([run for run in runs.values() if run.training]):
            train(group, stop)
        for number, one in runs.items():
            outcomes[number] = end(one)
    return [outcomes[number] for number in range(len(specs))]


def begin(spec: RunSpec, held: ExitStack, mesh) -> TrainingRun | dict:
    """A run at its newest step, its directory locked; the result of one that is finished.

    held: keeps the lock, the open checkpoints and loggers. mesh: instead of the configured devices.
    """
    config, log, directory = spec.config, spec.log, RunDir(spec.workdir)
    directory.check(config)
    if not directory.finished(config):
        loggers.check(config.runtime.loggers)  # errors before the lock
        datasets.find_root(config.data.name, config.data_dir)
    held.enter_context(WorkdirLock(directory.path))
    directory.check(config)  # until now another process may have begun here
    if result := directory.finished(config):
        log(f"{directory.path} is finished")
        files.remove_leftovers(directory.path)
        show(result, log)
        if changed := changed_data(config, directory):
            log(changed)
        return result
    log.keep_in(directory.path / "log.txt")
    setup, state = set_up(config, directory, log, mesh)
    latest = held.enter_context(Checkpoints(directory.checkpoints, keep=2))
    best = held.enter_context(Checkpoints(directory.best, keep=1))
    state, meta = restore(setup, state, latest)
    meta = rescue_best(setup, state, meta, best)
    total, plan = setup.plan.total, setup.plan
    progress = Progress(total, int(state.step), plan.batch, config.runtime.progress)
    logging = Loggers(
        config.runtime.loggers, directory.path, configs.to_plain(config), directory.rows(), log
    )
    held.enter_context(logging)
    heartbeat = held.enter_context(Heartbeat(directory.path / NAME, total))
    return TrainingRun(
        setup, state, meta, latest, best, progress, heartbeat, logging, spec.callbacks
    )


def changed_data(config, directory: RunDir) -> str:
    """A remark where a user's folder no longer holds what a finished run was trained on."""
    if config.data.name != "folder":
        return ""  # the files of the other data sets are what they are
    try:
        dataset = datasets.load(config)
    except UserError as error:
        return f"its data cannot be read now: {error}"
    old = read_json(directory.data)
    if old["fingerprint"] == dataset.fingerprint():
        return ""
    return (
        f"the data have changed since ({old['items']} items then, {len(dataset.images)} now): this "
        f"result is of the old ones; to train on the new ones choose another --workdir or delete "
        f"{directory.path}"
    )


def train(runs: Sequence[TrainingRun], stop: signals.Stop) -> None:
    """All steps that are left, of runs that are equally far; leaves the last states in them.

    A run that fails keeps its error, one that stops early is evaluated at once, and the others go
    on, in the same program. Raises Stopped, with all saved.
    """
    plan, step = runs[0].setup.plan, int(runs[0].state.step)
    if step >= plan.total:
        return
    runs[0].setup.log("compiling the training step (once per machine and shape, some minutes)")
    train_step = batched.BatchedStep(runs)
    first, begun = step, time.monotonic()
    while step < plan.total and any(run.training for run in runs):
        train_step.dispatch()  # forward pass, loss, gradient, update: step.make_train_step
        if step == first:
            start_clocks(runs, time.monotonic() - begun)
        stop.to_save = True
        step += plan.per_dispatch
        stopping, epoch_ends = stop.requested(), step % plan.per_epoch == 0
        pausing = stopping or epoch_ends
        check_losses(runs, train_step, 0 if pausing else _IN_FLIGHT)
        for run in runs:
            if run.training:
                run.heartbeat.beat(step, batch=plan.batch)
        if pausing:
            for run, state in zip(runs, train_step.states(), strict=True):
                if run.training:
                    run.state = state
                    with run.guarded():
                        end_epoch(run, step, epoch_ends, stopping)
        if stopping and not all(run.error for run in runs):
            reason = stop.signal_name or "the scheduler"
            raise Stopped(f"stopped by {reason} at step {step}: run again")
        end_stopped(runs)
    stop.to_save = False  # the last states are on the disk
    for run in runs:
        run.progress.close()


def start_clocks(runs: Sequence[TrainingRun], seconds: float) -> None:
    """Say how long the compiler took; it is part of the runs' time, but not of their epochs'."""
    runs[0].setup.log(f"compiled in {seconds:.0f} s")
    for run in runs:
        run.begun = time.monotonic()
        run.meta["seconds"] += seconds


def check_losses(runs: Sequence[TrainingRun], step: batched.BatchedStep, waiting: int) -> None:
    """Losses as numbers, but for the newest `waiting`; one that is not finite ends its run."""
    for losses in step.losses(waiting):
        for number, (run, loss) in enumerate(zip(runs, losses, strict=True)):
            if not run.training:
                continue
            run.progress.advance(run.setup.plan.per_dispatch, loss)
            if not np.isfinite(loss):
                run.fail(diverged(run, step.states()[number]))


def end_epoch(run: TrainingRun, step: int, epoch_ends: bool, stopping: bool) -> None:
    """Validate, keep the best epoch, and save if a checkpoint is due; notes an early end.

    epoch_ends: false where a stop comes within an epoch, of which only the state is saved.
    """
    setup, last = run.setup, step == run.setup.plan.total
    setup.directory.require_there()
    check_finite(run)  # only finite numbers are saved
    due = stopping or last
    if epoch_ends:
        row = validated(run, step)
        stop_early(run, row, last)
        last |= bool(run.meta["stopped"])
        due |= last or row["epoch"] % setup.config.train.save_every_epochs == 0
    if due:
        meta = {**run.meta, **setup.directory.identity(), "log_hash": setup.directory.log_hash()}
        run.latest.save(step, dict(run.state.__dict__), meta, final=stopping or last)


def validated(run: TrainingRun, step: int) -> dict:
    """Score an epoch, keep it if it is the best and log it; its row, with `images_per_s`."""
    seconds, run.begun = time.monotonic() - run.begun, time.monotonic()
    row = validate.epoch_row(run.setup, run.state, step)
    waiting = early_stop.waited(run.meta, row["val/miou"])
    run.meta = keep_best(run.setup, run.best, run.state, step, row, run.meta)
    run.meta["waited"] = waiting
    run.meta["seconds"] += seconds + time.monotonic() - run.begun
    run.begun = time.monotonic()
    run.progress.validated(row["val/miou"])
    run.setup.directory.append(row)
    run.setup.log(validate.epoch_line(run.setup, row, seconds))
    row["images_per_s"] = validate.speed(run.setup, seconds)
    run.loggers.scalars(step, row)
    return row


def stop_early(run: TrainingRun, row: dict, last: bool) -> None:
    """Note why the run ends with this epoch, if it does; last: it does so anyway."""
    patience = run.setup.config.train.patience
    reason = early_stop.reason(row, run.meta["waited"], patience, run.callbacks)
    if reason and not last:
        run.meta["stopped"] = {"epoch": row["epoch"], "reason": reason}
        run.setup.log(f"stopped early at epoch {row['epoch']}: {reason}")


def end_stopped(runs: Sequence[TrainingRun]) -> None:
    """Evaluate the runs that have just stopped early: their states are lost with the next step.

    The clocks of the others stand still meanwhile.
    """
    begun = time.monotonic()
    for run in runs:
        if run.meta["stopped"]:
            end(run)
    for run in runs:
        run.begun += time.monotonic() - begun


def end(run: TrainingRun) -> dict | FeedsegError:
    """The result of a run whose last step is done, or why it has none; made once."""
    with run.guarded():
        if not run.error and not run.result:
            run.result = finish(run.setup, run.state, run.meta, run.best)
            run.heartbeat.end(None)
            run.loggers.images(int(run.state.step), map(run.setup.directory.path.joinpath, FIGURES))
            show(run.result, run.setup.log)
    return run.error or run.result
