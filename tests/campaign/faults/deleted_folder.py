"""The folder that a command writes is removed while it writes; then the same command again."""

import shutil

from tests.campaign import disturb, tasks

COMMANDS = (tasks.TRAIN, tasks.PREDICT, tasks.PREDICT_ZARR, tasks.REPORT, tasks.EXPORTS[0])


def attempt(rng, folder):
    task, inner = rng.choice(COMMANDS), folder / "deleted"
    inner.mkdir()
    gone = inner if task in tasks.EXPORTS or rng.random() < 0.3 else task.output(inner)
    at = disturb.moment(rng, task)

    def remove(_) -> None:
        shutil.rmtree(gone, ignore_errors=True)

    did = f"with {gone.name} removed at {at:.2f} s of {task.undisturbed()[1]:.1f}"
    return disturb.disturbed(task, task.output(inner), did, [(at, remove)], warned=True)
