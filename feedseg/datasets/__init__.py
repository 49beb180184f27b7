"""Data sets, one file each, found by name.

Every file has `CLASSES`, `COLORS`, `LICENCE`, `CITATION`, `LAYOUT`, `OBTAIN`, `FOLDERS` (possible
names of its folder; None if there are no files) and `load(root, options) -> RawData`.
Optional: `DOWNLOADS`, the files that `feedseg fetch` gets; `BORDER_CLASS`, the class between cells;
`PREPARATION`, what the configuration needs for its images; `PROTOCOLS`, what published protocols
change in it: Feedback U-Net's splits `random` and `sections` and its recipe `paper`, and `aep`.
"""

import importlib
import os
import pkgutil
from pathlib import Path
from types import ModuleType

from feedseg.datasets.common import targets
from feedseg.datasets.common.dataset import CONVERSIONS, VOID, Dataset, assemble, crop_side
from feedseg.io import normalize
from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

NAMES = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg))


def module(name: str) -> ModuleType:
    """The file of a data set; UserError for an unknown name."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise UserError(f"data set {name!r} is unknown{hint} There are: {', '.join(NAMES)}.")
    return importlib.import_module(f"feedseg.datasets.{name}")


def preparation(name: str) -> dict:
    """Nested configuration keys that the images of a data set need."""
    return getattr(module(name), "PREPARATION", {})


def protocol(name: str, key: str) -> dict:
    """Nested configuration keys of a published protocol on a data set; empty if it has none."""
    return getattr(module(name), "PROTOCOLS", {}).get(key, {})


def border_class(name: str) -> str:
    """The class of a data set that separates cells; empty if there is none."""
    return getattr(module(name), "BORDER_CLASS", "")


def find_root(name: str, data_dir: str) -> Path | None:
    """Folder of a data set below `data_dir`, else below the environment's FEEDSEG_DATA.

    None for a data set without files. Raises UserError with the folders searched, the expected
    layout, how to obtain the data and a command that needs none.
    """
    source = module(name)
    if source.FOLDERS is None:
        return None
    base = Path(data_dir or os.environ.get("FEEDSEG_DATA", "") or "data")
    candidates = [base / folder for folder in source.FOLDERS] or [base]
    for folder in candidates:
        if folder.is_dir():
            return folder
    if not source.FOLDERS:
        raise UserError(f"{base}: no such folder. {source.OBTAIN}")
    raise UserError(
        f"no data for {name!r}: looked for {', '.join(map(str, candidates))}"
        + ("" if data_dir else " (set FEEDSEG_DATA or --config.data_dir)"),
        f"  expected: {source.LAYOUT}",
        f"  to get it: {source.OBTAIN}",
        "  without data: python -m feedseg.main --config configs/aep_irpe.py:dataset=synthetic",
    )


def _require_plain(name: str, options) -> None:
    """Raises UserError for options that a data set of known files does not take."""
    given = {"split.group": options.group, "data.axes": options.axes}
    given["data.interpret"] = "" if options.interpret == "auto" else options.interpret
    given["data.fill_missing"] = options.fill_missing
    given["data.channels"] = "" if options.channels in CONVERSIONS else options.channels
    for key in ("pixel_size", "series", "z", "channel_files"):
        given[f"data.{key}"] = options[key]
    for key, value in given.items():
        if value:
            raise UserError(f"{key}={value}: is for data.name=folder; {name} knows its files")


def load(config) -> Dataset:
    """The data set of a run, prepared: `config.data`, `config.data_dir` and `config.split.fold`."""
    name, limits = config.data.name, config.data.percentiles
    if wrong := normalize.wrong_limits(config.data.normalization, limits):
        raise UserError(f"data.percentiles={limits}: {wrong}")
    root = find_root(name, config.data_dir)
    options = config.data.copy_and_resolve_references()
    with options.unlocked():
        options.fold, options.group = config.split.fold, config.split.group
    if name != "folder":
        _require_plain(name, options)
    raw = targets.prepare(module(name).load(root, options), options)
    if config.split.scheme == "auto":
        with options.unlocked():
            sizes = [s.label.shape for s in raw.sections if (s.label != VOID).any()]
            if options.crops == "random":
                options.part_size = crop_side(sizes, 0) if len(sizes) < 3 else 0
            else:
                options.crop_size = crop_side(sizes, options.crop_size)
    return assemble(name, raw, options)
