"""Which files a prediction reads and writes, and which it has written before.

A command that was stopped goes on where it was: a record beside the results says which of them are
those of this model, of these options and of this input.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from feedseg import atomic, image_io, objects
from feedseg.errors import UserError
from feedseg.rundir import read_json

RECORD = "feedseg-predict.json"


class Job(NamedTuple):
    """One input file and the files made from it."""

    image: Path
    labels: Path
    probabilities: Path | None = None
    uncertainty: Path | None = None
    overlay: Path | None = None
    tables: tuple[Path, ...] = ()  # of classes and of objects

    def outputs(self) -> list[Path]:
        """The files to be written."""
        maps = (self.labels, self.probabilities, self.uncertainty, self.overlay)
        return [path for path in maps if path] + list(self.tables)


KINDS = ("probabilities", "uncertainty", "overlay", "tables")


def plan_jobs(inputs: Path, output: Path, kinds: Collection[str] = ()) -> list[Job]:
    """The files to read and to write; kinds: of `KINDS`, what to write beside the labels.

    Raises UserError if there is no image, or if a folder would receive its own results (they
    would be taken for images the next time).
    """
    files = image_io.list_images(inputs)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; --output takes a folder")
    if inputs.is_dir() and inputs.resolve() == output.resolve():
        raise UserError(f"{output}: is the folder of the images; give another --output folder")
    names = output_names(files)
    return [_job(file, output / name, kinds) for file, name in zip(files, names, strict=True)]


def _job(image: Path, stem: Path, kinds: Collection[str]) -> Job:
    def beside(kind: str, suffix: str) -> Path | None:
        return stem.with_name(f"{stem.name}_{kind}.{suffix}") if kind in kinds else None

    return Job(
        image,
        stem.with_name(f"{stem.name}_labels.tif"),
        beside("probabilities", "tif"),
        beside("uncertainty", "tif"),
        beside("overlay", "png"),
        objects.table_paths(stem) if "tables" in kinds else (),
    )


def output_names(files: list[Path]) -> list[str]:
    """A name per file: its stem; `stem_suffix` for all if two files share a stem (in any case).

    Raises UserError if two names differ in upper and lower case only.
    """
    names = [file.stem for file in files]
    if _repeated(names):
        names = [f"{file.stem}_{file.suffix[1:].lower()}" for file in files]
    if repeated := _repeated(names):
        raise UserError(f"{files[0].parent}: several images are called {repeated}; rename them")
    return names


def _repeated(names: list[str]) -> str | None:
    name, count = Counter(name.lower() for name in names).most_common(1)[0]
    return name if count > 1 else None


def refuse_existing(jobs: list[Job]) -> None:
    """Raises UserError if a file to be written is there already."""
    planned = [path for job in jobs for path in job.outputs()]
    there = [path for path in planned if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: exists; add --overwrite or choose another --output")


class Record:
    """What a folder of results is made of. what: the model and the options, as plain data."""

    def __init__(self, folder: Path, what: dict):
        self._path = folder / RECORD
        self._what = what
        found = read_json(self._path) if self._path.exists() else {}
        self._done = found.get("done", {}) if found.get("what") == what else {}

    def has(self, job: Job) -> bool:
        """Whether all files of a job are there and are of its image as it is now."""
        mark = self._done.get(str(job.image.resolve()))
        return mark == _mark(job) and all(path.exists() for path in job.outputs())

    def add(self, job: Job) -> None:
        """A job is done."""
        self._done[str(job.image.resolve())] = _mark(job)
        atomic.write_json_atomic(self._path, {"what": self._what, "done": self._done})


def _mark(job: Job) -> dict:
    """Size and time of the image, names of the results."""
    facts = job.image.stat()
    names = [path.name for path in job.outputs()]
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "files": names}
