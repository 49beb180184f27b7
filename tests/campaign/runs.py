"""Damaged copies of a finished run, and what commands make of them."""

import shutil
import zipfile
from pathlib import Path

from feedseg.runs.config import config_hash
from feedseg.runs.directory import read_json
from tests.campaign import materials, process, tasks
from tests.campaign.outcome import Outcome, refused, survived, wrong
from tests.support.run_files import edit, scores

VERBS = ("resume", "predict", "latest", "export", "report")


def copy(where: Path) -> Path:
    return Path(shutil.copytree(tasks.run(), where))


def rename(run: Path, **changes) -> None:
    """Other values in the configuration of a run, as if it had been trained so."""
    edit(run / "config.json", **changes)
    edit(run / "result.json", **changes, config_hash=config_hash(read_json(run / "config.json")))


def use(run: Path, verb: str, did: str) -> Outcome:
    """The damaged run in a command: the answer of the undamaged run, a refusal, or a warning."""
    out = run.with_name("out.feedseg.zip" if verb == "export" else "out")
    finished = (run / "result.json").exists()
    ended = process.python(*_arguments(verb, run, out))
    did = f"{did}, then {verb}" + ("" if finished else " of the unfinished run")
    if problem := ended.problem():
        return wrong(f"{did}: {problem}")
    if ended.code:
        return refused(did)
    problem = _differs(verb, run, out, finished)
    if problem and ("warning: " in ended.out or "damaged" in ended.err):
        return refused(f"{did}: {problem}, and it says so")
    return wrong(f"{did}: {problem}") if problem else survived(did)


def _arguments(verb: str, run: Path, out: Path) -> list[object]:
    match verb:
        case "resume":
            return tasks.train_arguments(run)
        case "export":
            return ["-m", "feedseg.cli", "export", run, "--to", out]
        case "report":
            return ["-m", "feedseg.cli", "report", run, "--output", out]
        case _:
            checkpoint = {"predict": "best", "latest": "latest"}[verb]
            return tasks.predict_arguments(out, "--checkpoint", checkpoint, model=run)


def _differs(verb: str, run: Path, out: Path, finished: bool) -> str:
    """What is other than with the undamaged run, or nothing."""
    if verb == "resume":
        return _same_result(run) if finished else _same_resumed(run)
    if verb == "report":
        return "" if (out / "index.html").exists() else "no index.html"
    wanted = materials.made_once(_wanted, verb)
    if verb == "export":
        return "" if _weights(out) == _weights(wanted) else "other weights than of the whole run"
    for path in sorted(wanted.glob("*.tif")):
        if not (out / path.name).exists() or (out / path.name).read_bytes() != path.read_bytes():
            return f"{path.name} differs from that of the undamaged run"
    return ""


def _wanted(verb: str) -> Path:
    name = f"wanted-{verb}" + (".feedseg.zip" if verb == "export" else "")
    out = materials.folder() / name
    if process.python(*_arguments(verb, tasks.run(), out)).code:
        raise materials.Unprepared(f"{verb} fails with the undamaged run")
    return out


def _weights(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        found = {name: tasks.digest(archive.read(name)) for name in archive.namelist()}
    return {name: value for name, value in found.items() if name.endswith(".safetensors")}


def _same_result(run: Path) -> str:
    return (
        ""
        if scores(run) == scores(tasks.run())
        else "a finished run of another result is shown as this one's"
    )


def _same_resumed(run: Path) -> str:
    """As `tasks.same_run`, but what is damaged may be kept beside it."""
    for path in [*run.glob("*damaged*"), *run.glob("*/*damaged*")]:
        shutil.rmtree(path, ignore_errors=True)
    return tasks.same_run(tasks.run(), run, True)
