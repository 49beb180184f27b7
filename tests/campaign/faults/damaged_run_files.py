"""Small files of a run deleted, cut, emptied, replaced; then resume, predict, export, report."""

import shutil

from tests.campaign import fuzz, runs, tasks

FILES = ("config.json", "data.json", "result.json", "metrics.jsonl")


def attempt(rng, folder):
    run = runs.copy(folder / "run")
    path = run / rng.choice(FILES)
    if path.name != "result.json" and rng.random() < 0.3:
        (run / "result.json").unlink()
    kind = rng.choice(("deleted", "emptied", "{}", "[]", "other", "damaged", "json"))
    did = f"{path.name} {kind}"
    if kind == "deleted":
        path.unlink()
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind in ("{}", "[]"):
        path.write_text(kind)
    elif kind == "other":
        shutil.copy(tasks.other_run() / path.name, path)
        did = f"{path.name} of another run"
    else:
        did = (fuzz.damage_file if kind == "damaged" else fuzz.damage_json)(rng, path)
    return runs.use(run, rng.choice(runs.VERBS), did)
