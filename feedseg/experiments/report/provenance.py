"""Provenance of the numbers of a report."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import feedseg
from feedseg.experiments.report.collect import Collection, FinishedRun

_HASH_DIGITS = 16  # of the data hash in text; CSV files have all of it


def provenance(run: FinishedRun) -> dict:
    """Versions, device and hashes of a run."""
    keys = ("version", "jax", "python", "device", "config_hash", "data_hash")
    return {key: run.result.get(key) for key in keys}


def origins(collection: Collection) -> list[str]:
    """Versions and devices of all runs in a line; per method its configurations and data."""
    names = {"version": "feedseg", "jax": "jax", "python": "python", "device": "device"}
    lines = [", ".join(f"{title} {_distinct(collection.runs, k)}" for k, title in names.items())]
    for method in collection.methods:
        config, data = (_distinct(method.runs, key) for key in ("config_hash", "data_hash"))
        lines.append(f"{method.name}: configuration {config}, data {data}")
    return lines


def short(key: str, value) -> str:
    """A value of the provenance as text."""
    if value is None:
        return "-"
    return str(value)[:_HASH_DIGITS] if key == "data_hash" else str(value)


def _distinct(runs: Sequence[FinishedRun], key: str) -> str:
    return " / ".join(dict.fromkeys(short(key, provenance(run)[key]) for run in runs))


def tools() -> dict[str, str]:
    """Versions of the tools that made the report."""
    libraries = {name: version(name) for name in ("numpy", "scipy", "matplotlib")}
    return {"feedseg": feedseg.__version__, "python": platform.python_version(), **libraries}
