"""SIGKILL to a prediction of TIFF or OME-Zarr at random times, then the same command again."""

from tests.campaign import disturb, tasks


def attempt(rng, folder):
    return disturb.killed(rng, rng.choice((tasks.PREDICT, tasks.PREDICT_ZARR)), folder)
