"""SIGKILL to a report at random times, then the same command again."""

from tests.campaign import disturb, tasks


def attempt(rng, folder):
    return disturb.killed(rng, tasks.REPORT, folder)
