"""Training: the loop, from a config to a finished run directory. Read this file first.

A run is an idempotent command: started again it continues, bit for bit on one device, or, when
finished, only shows its result. Several runs may be trained as one program; each has its own
directory, checkpoints, best epoch and result.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from feedseg.runtime import signals, xla
from feedseg.runtime.errors import FeedsegError, Stopped, UserError
from feedseg.runtime.logs import Log
from feedseg.training import batched
from feedseg.training.run import RunSpec, TrainingRun, begin, close, diverged, end

_IN_FLIGHT = 2  # dispatched programs that may wait on the device before the host looks at one


def run(config, workdir: Path, log: Log) -> dict:
    """Train, evaluate and write the result; returns the content of result.json.

    Raises FeedsegError with the exit code of its kind.
    """
    (outcome,) = run_together([RunSpec(config, workdir, log)])
    if isinstance(outcome, FeedsegError):
        raise outcome
    return outcome


def run_together(orders: Sequence[RunSpec]) -> list[dict | FeedsegError]:
    """Several runs at once; returns the content of each one's result.json, or why it has none.

    Raises Stopped if a signal asked for it; all are saved then.
    """
    if len(orders) > 1 and jax.process_count() > 1:
        raise UserError("several runs as one program are one process: set FEEDSEG_PROCESSES=1")
    xla.keep_programs()
    outcomes: dict[int, dict | FeedsegError] = {}
    courses: dict[int, TrainingRun] = {}
    meshes = [None] if len(orders) == 1 else batched.devices()
    with ExitStack() as held, signals.Stop(jax.process_count()) as stop:
        # Lock, set up, restore -------------------------------------------------------------
        for number, order in enumerate(orders):
            try:
                begun = begin(order, held, meshes[number % len(meshes)])
            except FeedsegError as error:
                begun = error
            (courses if isinstance(begun, TrainingRun) else outcomes)[number] = begun

        # Train ------------------------------------------------------------------------------
        for group in groups(list(courses.values())):
            train(group, stop)

        # Evaluate and save ------------------------------------------------------------------
        for number, course in courses.items():
            outcomes[number] = end(course)
    return [outcomes[number] for number in range(len(orders))]


# Train ----------------------------------------------------------------------------------------


def groups(courses: Sequence[TrainingRun]) -> list[list[TrainingRun]]:
    """Runs that can be trained side by side, in the order of the first of each group."""
    found: dict[str, list[TrainingRun]] = {}
    for course in courses:
        found.setdefault(batched.kind(course.job, course.state), []).append(course)
    return list(found.values())


def programs(courses: Sequence[TrainingRun]) -> list[tuple[batched.Program, list[TrainingRun]]]:
    """One program for the runs on each device."""
    placed: dict[Any, list[TrainingRun]] = {}
    for course in courses:
        placed.setdefault(course.job.mesh, []).append(course)
    for own in placed.values():
        for course in own:
            course.meta["together"] = len(own)
    return [
        (batched.Program([c.job for c in each], [c.state for c in each]), each)
        for each in placed.values()
    ]


def train(courses: Sequence[TrainingRun], stop) -> None:
    """All epochs that are left, of runs that are equally far; leaves the last states in them.

    A run that fails keeps its error and the others go on. Raises Stopped, with all saved.
    """
    job, step = courses[0].job, int(courses[0].state.step)
    if step >= job.total_steps:
        return
    job.log("compiling the training step (once per machine and shape, up to a few minutes)")
    running = programs(courses)
    for course in courses:
        course.begun = time.monotonic()
    while step < job.total_steps and not all(course.error for course in courses):
        for program, _ in running:
            program.dispatch()
        step += job.steps_per_dispatch
        stopping, epoch_ends = stop.requested(), step % job.steps_per_epoch == 0
        for program, own in running:
            look(program, own, 0 if stopping or epoch_ends else _IN_FLIGHT)
            for course in own:
                if not course.error:
                    course.pulse.beat(step, batch=job.batch)
            if stopping or epoch_ends:
                account(program, own, step, epoch_ends, stopping)
        if stopping and not all(course.error for course in courses):
            raise Stopped(
                f"stopped by {stop.signal_name or 'the scheduler'} at step {step}: run again"
            )
    for course in courses:
        course.progress.close()


def look(program: batched.Program, courses: Sequence[TrainingRun], waiting: int) -> None:
    """Losses as numbers; one that is not finite ends its run."""
    for losses in program.losses(waiting):
        for number, (course, loss) in enumerate(zip(courses, losses, strict=True)):
            if course.error:
                continue
            course.progress.advance(course.job.steps_per_dispatch, loss)
            if not np.isfinite(loss):
                course.fail(diverged(course, program.states()[number]))


def account(
    program: batched.Program,
    courses: Sequence[TrainingRun],
    step: int,
    epoch_ends: bool,
    stopping: bool,
) -> None:
    """Scores and checkpoints of the runs of a program, at the end of an epoch or of the process."""
    for course, course.state in zip(courses, program.states(), strict=True):
        if course.error:
            continue
        try:
            close(course, step, epoch_ends, stopping)
        except FeedsegError as error:
            course.fail(error)
