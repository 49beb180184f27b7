"""Commands that write something, and what it looks like when nothing disturbs them."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from feedseg.experiments.report.folder import RECORD as REPORT_RECORD
from feedseg.inference.outputs.record import NAME as RECORD
from feedseg.runs import checkpoint_format
from feedseg.runs.checkpoint import read_tree, saved_steps
from tests.campaign import materials, process
from tests.support.run_files import scores

TINY = materials.ROOT / "tests" / "support" / "tiny.py"
EPOCHS = "train.epochs=8"
_FEEDSEG = ("-m", "feedseg.cli")
_RECORDS = (RECORD, REPORT_RECORD)  # which say more in the end than on the way
_TEMPORARY = re.compile(r"\..+\.\d+(-[0-9a-f]+)?\.\w+|\.?tmp.*|.*(checkpoint-tmp|\.part$).*")


class Task(NamedTuple):
    """A command. command(out): Python's arguments; compare(wanted, found, complete): a problem or
    nothing; complete: it has ended with 0, else what is there must be right.
    """

    name: str
    command: Callable[[Path], list[object]]
    compare: Callable[[Path, Path, bool], str]
    suffix: str = ""  # of what it writes

    def output(self, folder: Path) -> Path:
        return folder / f"{self.name}{self.suffix}"

    def run(self, out: Path, **options) -> process.Ended:
        return process.python(*self.command(out), **options)

    def undisturbed(self) -> tuple[Path, float]:
        """What it writes, and its seconds with the programs compiled before."""
        return materials.made_once(_undisturbed, self)

    def problem(self, out: Path, complete: bool = True) -> str:
        return self.compare(self.undisturbed()[0], out, complete)

    def finish(self, out: Path, warned: bool = False) -> str:
        """Run it with nothing to disturb it: a problem, unless it is as if never disturbed.

        warned: or says in a warning what has taken the place of what was lost.
        """
        ended = self.run(out)
        if ended.code == 2 and "exists; add --overwrite" in ended.err:  # it was done before
            return ended.problem() or self.problem(out)
        if ended.code:
            return f"run again: {ended.problem() or ended.err.strip()[-300:]}"
        left = sorted(path.name for path in out.parent.glob(f".{out.name}*"))
        found = ended.problem() or (left and f"{left[0]} is left over")
        if not (found or (warned and "warning: " in ended.out)):
            found = self.problem(out)
        return f"run again: {found}" if found else ""


def _undisturbed(task: Task) -> tuple[Path, float]:
    outs = [task.output(materials.folder() / name) for name in ("first", "wanted")]
    for out in outs:
        out.parent.mkdir(exist_ok=True)
        ended = task.run(out, limit_s=300)
        if ended.code or ended.problem():
            raise materials.Unprepared(f"{task.name} fails undisturbed: {ended.err[-500:]}")
    if differs := task.compare(outs[0], outs[1], True):
        raise materials.Unprepared(f"{task.name} differs from itself undisturbed: {differs}")
    return outs[1], ended.seconds


# Comparison ---------------------------------------------------------------------------------------


def same_files(wanted: Path, found: Path, complete: bool) -> str:
    """A problem unless files and folders hold the same bytes."""
    if wanted.is_file():
        there = {Path(): found} if found.exists() else {}
        expected = {Path(): wanted}
    else:
        expected, there = dict(_files(wanted)), dict(_files(found))
    for name, path in there.items():
        if complete or not "".join(name.parts[:1]).startswith("."):
            if name not in expected:
                return f"{name} is left over"
            settled = complete or name.name not in _RECORDS
            if settled and _content(path) != _content(expected[name]):
                return f"{name or found.name} differs from the undisturbed one"
    if complete and (absent := expected.keys() - there.keys()):
        return f"{min(absent) if wanted.is_dir() else found.name} is missing"
    return ""


def _files(folder: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder), path


def _content(path: Path) -> object:
    """Of an archive its members without their times, of a record what it says in the end."""
    if path.name == RECORD:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        return {row["done"]: row for row in rows if "done" in row}
    if path.name.endswith(".stablehlo.zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                return {name: digest(archive.read(name)) for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError) as error:
            return str(error)
    return path.read_bytes()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def same_run(wanted: Path, found: Path, complete: bool) -> str:
    """A problem unless result, metrics, checkpoints and file names of two runs are the same."""
    if not complete:
        return _whole_json(found)
    if scores(wanted) != scores(found):
        return "result.json differs from the undisturbed one"
    if (wanted / "metrics.jsonl").read_bytes() != (found / "metrics.jsonl").read_bytes():
        return "metrics.jsonl differs from the undisturbed one"
    for name in ("best", "checkpoints"):
        one, other = (saved_steps(run / name)[-1] for run in (wanted, found))
        if one != other or _arrays(wanted / name) != _arrays(found / name):
            return f"{name}: arrays of step {other} differ from the undisturbed ones of {one}"
    names = {path.name for path in found.iterdir()} - {path.name for path in wanted.iterdir()}
    left = names - {"console.txt"} or {
        path.name for path in found.rglob("*") if _TEMPORARY.fullmatch(path.name)
    }
    return f"{min(left)} is left over" if left else ""


def _arrays(folder: Path) -> dict[str, str]:
    host = checkpoint_format.to_host(read_tree(folder)[0])
    return {name: digest(array.tobytes()) for name, array in host.items()}


def _whole_json(run: Path) -> str:
    for name in ("config.json", "data.json", "result.json"):
        try:
            json.loads((run / name).read_text())
        except FileNotFoundError:
            pass
        except ValueError:
            return f"{name} is half-written"
    return ""


def same_sweep(wanted: Path, found: Path, complete: bool) -> str:
    problems = (same_run(run, found / run.name, complete) for run in sorted(wanted.iterdir()))
    return next(filter(None, problems), "")


# Commands -----------------------------------------------------------------------------------------


def train_arguments(out: Path, *changes: str) -> list[object]:
    settings = [f"--config.{change}" for change in (EPOCHS, *changes)]
    return ["-m", "feedseg.main", f"--config={TINY}", *settings, f"--workdir={out}"]


TRAIN = Task("run", train_arguments, same_run)


def run() -> Path:
    """A finished run."""
    return TRAIN.undisturbed()[0]


def _other_run() -> Path:
    out = materials.folder() / "other"
    if process.python(*train_arguments(out, "seed=1")).code:
        raise materials.Unprepared("the other run fails undisturbed")
    return out


def other_run() -> Path:
    """A finished run of another seed."""
    return materials.made_once(_other_run)


def predict_arguments(out: Path, *more: object, model: Path | None = None) -> list[object]:
    options = ["--model", model or run(), "--input", materials.images(), "--output", out]
    return [*_FEEDSEG, "predict", *options, *more]


PREDICT = Task("labels", lambda out: predict_arguments(out, "--overlay", "--tables"), same_files)
PREDICT_ZARR = Task("zarr", lambda out: predict_arguments(out, "--format", "ome-zarr"), same_files)
REPORT = Task(
    "report", lambda out: [*_FEEDSEG, "report", run(), other_run(), "--output", out], same_files
)
_FORMATS = {  # suffix: what it needs beside the package
    ".feedseg.zip": (),
    ".stablehlo.zip": ("flatbuffers",),
    ".onnx": ("jax2onnx", "onnx", "onnxruntime"),
}
EXPORTS = tuple(
    Task("model", lambda out: [*_FEEDSEG, "export", run(), "--to", out], same_files, suffix)
    for suffix, needed in _FORMATS.items()
    if all(map(find_spec, needed))
)


def _sweep_arguments(out: Path) -> list[object]:
    """Two runs of different seeds at once."""
    runs = [{"config": str(TINY), "overrides": ["train.epochs=4", f"seed={k}"]} for k in range(2)]
    tasks = [[{**run, "workdir": str(out / str(k))}] for k, run in enumerate(runs)]
    plan = out.with_suffix(".json")
    plan.write_text(json.dumps({"tasks": tasks}))
    return ["-m", "launch.local", plan, "--jobs", "2"]


SWEEP = Task("sweep", _sweep_arguments, same_sweep)
