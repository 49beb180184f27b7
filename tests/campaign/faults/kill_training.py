"""SIGKILL to a training at random times, then the same command again."""

from tests.campaign import disturb, tasks


def attempt(rng, folder):
    return disturb.killed(rng, tasks.TRAIN, folder)
