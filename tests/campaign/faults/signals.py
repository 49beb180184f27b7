"""SIGTERM, SIGINT (also twice) and SIGUSR1 at random times of any command."""

import signal

from tests.campaign import disturb, process, tasks

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
COMMANDS = (tasks.TRAIN, tasks.TRAIN, tasks.PREDICT, tasks.REPORT, *tasks.EXPORTS)


def attempt(rng, folder):
    task, number = rng.choice(COMMANDS), rng.choice(SIGNALS)
    at = disturb.moment(rng, task)
    times = [at]
    if number == signal.SIGINT and rng.random() < 0.5:
        times.append(at + rng.uniform(0.01, 1))
    did = f"{number.name} at {', '.join(f'{each:.2f}' for each in times)} s"
    actions = [(each, process.sender(number)) for each in times]
    most_s = 30 if task is tasks.TRAIN else 10
    return disturb.disturbed(task, task.output(folder), did, actions, [number], most_s)
