"""What the faults of commands share: a task is disturbed at random times, then finished."""

import signal
from pathlib import Path
from random import Random

from tests.campaign import process
from tests.campaign.outcome import Outcome, judged
from tests.campaign.process import Action
from tests.campaign.tasks import Task


def moment(rng: Random, task: Task) -> float:
    """Seconds after the start, also shortly after the end."""
    return rng.uniform(0.05, 1.05 * task.undisturbed()[1])


def killed(rng: Random, task: Task, folder: Path, kill=process.kill_tree) -> Outcome:
    """The task is killed once or twice and then run again, to the end."""
    out, did = task.output(folder), []
    for _ in range(rng.choice((1, 1, 2))):
        at = moment(rng, task)
        ended = task.run(out, actions=[(at, kill)])
        did.append(f"{task.name}{task.suffix} killed at {at:.2f} s of {task.undisturbed()[1]:.1f}")
        problem = ended.problem([signal.SIGKILL], sweep=True) or task.problem(out, complete=False)
        if problem:
            return judged(problem, ", ".join(did))
    return judged(task.finish(out), ", ".join(did))


def disturbed(
    task: Task,
    out: Path,
    did: str,
    actions: list[Action],
    signals=(),
    most_s: float = 60,
    warned: bool = False,
) -> Outcome:
    """The task with these actions, then again without; most_s: to its end after the last action.

    warned: as in `Task.finish`.
    """
    ended = task.run(out, actions=actions)
    late = ended.seconds - actions[-1][0] if actions else 0
    problem = ended.problem(signals)
    if not problem and late > most_s:
        problem = f"ends {late:.0f} s later, more than {most_s:.0f}"
    problem = problem or (out.exists() and task.problem(out, complete=False))
    return judged(problem or task.finish(out, warned), f"{task.name}{task.suffix} {did}")
