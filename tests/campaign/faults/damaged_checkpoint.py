"""Bits flipped in saved steps, files of them removed or cut; then resume, predict or export."""

import shutil

from tests.campaign import fuzz, runs


def attempt(rng, folder):
    run = runs.copy(folder / "run")
    if rng.random() < 0.5:
        (run / "result.json").unlink()
    if rng.random() < 0.3:  # it has a way to go
        shutil.rmtree(max((run / "checkpoints").iterdir(), key=lambda path: int(path.name)))
    places = rng.choice((["best"], ["checkpoints"], ["best", "checkpoints"]))
    did = [fuzz.damage_folder(rng, run / place) for place in places for _ in range(2)]
    return runs.use(run, rng.choice((*runs.VERBS, "resume")), "; ".join(did))
