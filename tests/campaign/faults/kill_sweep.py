"""SIGKILL to a sweep, with its trainings or the parent alone, then the same command again."""

import signal

from tests.campaign import disturb, process, tasks


def attempt(rng, folder):
    kill = rng.choice((process.kill_tree, process.sender(signal.SIGKILL)))
    return disturb.killed(rng, tasks.SWEEP, folder, kill)
