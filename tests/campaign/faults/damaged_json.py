"""JSON of odd types, numbers and depth: dataset.json, sweeps, metadata of OME-Zarr, records."""

import json
import shutil

from tests.campaign import fuzz, materials, pictures, reading, worker
from tests.campaign.outcome import refused, survived, wrong
from tests.campaign.tasks import RECORD

LABELS = {"labels": {"background": 0, "cell": 1, "ignore": 2}, "numTraining": 3}
TRIAL = {"config": "unet", "overrides": ["seed=1"], "workdir": "runs/x"}


def attempt(rng, folder):
    return rng.choice((_data_set, _sweep, _record, _zarr))(rng, folder)


def _data_set(rng, folder):
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
        for name in "abc":
            pictures.labels(rng, folder / kind / f"{name}.png")
    path = folder / "dataset.json"
    path.write_text(json.dumps(LABELS))
    return reading.agreed("data_set", folder, fuzz.damage_json(rng, path))


def _sweep(rng, folder):
    path = folder / "sweep.json"
    path.write_text(json.dumps({"tasks": [[TRIAL, TRIAL], [TRIAL]]}))
    did = fuzz.damage_json(rng, path)
    answer = worker.ask("plan", path=str(path))
    if answer.problem:
        return wrong(f"{did}: {answer.problem}")
    return refused(did) if answer.refused else survived(did)


def _record(rng, folder):
    """Of a finished prediction, which is asked for again."""
    shutil.copytree(materials.made_once(_predicted), folder / "out")
    path = folder / "out" / RECORD
    lines = path.read_bytes().splitlines()
    number = rng.randrange(len(lines))
    lines[number], did = fuzz.damaged_json(rng, lines[number])
    path.write_bytes(b"\n".join([*lines, b""]))
    return reading.command(_predict(folder / "out"), f"{RECORD}: {did}, then predict")[0]


def _predict(out):
    image = materials.images() / "0.tif"
    return ["predict", "--model", materials.BUNDLED, "--input", image, "--output", out]


def _predicted():
    out = materials.folder() / "predicted"
    _, end = reading.command(_predict(out), "undisturbed")
    if end.get("code") != 0:
        raise materials.Unprepared(f"the prediction fails undisturbed: {end}")
    return out


def _zarr(rng, folder):
    if not pictures.zarr:
        return _sweep(rng, folder)
    path = pictures.make(rng, folder, "zarr")
    texts = [each for each in path.rglob("*") if each.name in (".zattrs", ".zarray", "zarr.json")]
    return reading.agreed("array", path, f"{fuzz.damage_json(rng, rng.choice(sorted(texts)))}")
