"""SIGKILL to an export of any format at random times, then the same command again."""

from tests.campaign import disturb, tasks


def attempt(rng, folder):
    return disturb.killed(rng, rng.choice(tasks.EXPORTS), folder)
