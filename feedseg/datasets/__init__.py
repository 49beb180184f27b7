"""Data sets, one file each, found by name.

Every file has `CLASSES`, `COLORS`, `LICENCE`, `CITATION`, `FOLDERS`, `LAYOUT`, `OBTAIN`,
`DOWNLOADS` and `load(root, options) -> Source`; `load` here prepares the arrays.
"""

import importlib
import os
import pkgutil
from pathlib import Path
from types import ModuleType

from feedseg.datasets.common import targets
from feedseg.datasets.common.dataset import Dataset, assemble
from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

NAMES = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg))


def module(name: str) -> ModuleType:
    """The file of a data set; UserError for an unknown name."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise UserError(f"data set {name!r} is unknown{hint} There are: {', '.join(NAMES)}.")
    return importlib.import_module(f"feedseg.datasets.{name}")


def find_root(name: str, data_dir: str) -> Path | None:
    """Folder of a data set below `data_dir`, else below the environment's FEEDSEG_DATA.

    None for a data set that is made, not read. Raises UserError with the places looked at, the
    layout expected, how to get the data and a command that needs none.
    """
    source = module(name)
    if not source.FOLDERS and name == "synthetic":
        return None
    base = Path(data_dir or os.environ.get("FEEDSEG_DATA", "") or "data")
    places = [base / folder for folder in source.FOLDERS] or [base]
    for place in places:
        if place.is_dir():
            return place
    if name == "folder":
        raise UserError(f"{base}: no such folder; name your images with --config.data_dir=FOLDER")
    raise UserError(
        f"no data for {name!r}: looked for {', '.join(map(str, places))}"
        + ("" if data_dir else " (set FEEDSEG_DATA or --config.data_dir)")
        + f"\n  expected: {source.LAYOUT}\n  to get it: {source.OBTAIN}"
        + "\n  without data: python -m feedseg.main --config configs/aep_irpe.py:dataset=synthetic"
    )


def load(config) -> Dataset:
    """The data set of a run, prepared: `config.data`, `config.data_dir` and `config.split.fold`."""
    name = config.data.name
    root = find_root(name, config.data_dir)
    options = config.data.copy_and_resolve_references()
    with options.unlocked():
        options.fold = config.split.fold
    return assemble(name, targets.prepare(module(name).load(root, options), options), options)
