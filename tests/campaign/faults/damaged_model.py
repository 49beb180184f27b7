"""Damaged model files: refused, or the probabilities of the whole model, bit for bit."""

import shutil

from tests.campaign import fuzz, materials, tasks, worker
from tests.campaign.outcome import refused, survived, wrong

EXPORTED = [task for task in tasks.EXPORTS if task.suffix != ".feedseg.zip"]


def attempt(rng, folder):
    exported = (
        EXPORTED and rng.random() < 0.5
    )  # .stablehlo.zip is no model file: all of it is refused
    whole = rng.choice(EXPORTED).undisturbed()[0] if exported else materials.BUNDLED
    path = folder / f"damaged{whole.name[whole.name.index('.') :]}"
    shutil.copy(whole, path)
    did = (fuzz.damage_zip if path.suffix == ".zip" else fuzz.damage_file)(rng, path)
    answer = worker.ask("model", path=str(path), memory_mb=800)
    if answer.problem:
        return wrong(f"{did}: {answer.problem}")
    if answer.refused:
        return refused(did)
    same = answer.value == materials.made_once(_probabilities, whole)
    return survived(did) if same else wrong(f"{did}: other probabilities than of the whole model")


def _probabilities(path):
    answer = worker.ask("model", path=str(path))
    if not answer.value:
        raise materials.Unprepared(f"{path.name} fails undamaged: {answer}")
    return answer.value
