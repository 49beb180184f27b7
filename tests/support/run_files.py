"""The small files of a run, changed as if the run had written them so, and compared."""

from pathlib import Path

from feedseg.runs.directory import read_json
from feedseg.runtime.files import write_sealed

OF_A_DAY = ("seconds", "device", "together")  # what two runs with equal numbers may differ in


def edit(path: Path, **changes) -> None:
    """Other values in a file of a run, sealed anew."""
    write_sealed(path, {**read_json(path), **changes})


def scores(run: Path) -> dict:
    """The content of result.json without what depends on the day and the machine."""
    return {k: v for k, v in read_json(run / "result.json").items() if k not in OF_A_DAY}
