"""Loggers: where a run's epochs go beside metrics.jsonl, which stays the truth. One file each.

`runtime.loggers` names them. Every file exposes `Logger`, a subclass of the one below, and
`PACKAGE`, the package that it needs beside feedseg's own, which is the extra of the file's name;
empty without. It imports the package when it is used.
"""

import abc
import importlib
import math
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from feedseg.runtime import files, processes
from feedseg.runtime.errors import UserError, one_line
from feedseg.runtime.logs import Log
from feedseg.runtime.suggest import did_you_mean


class Logger(abc.ABC):
    """Writes the epochs of one run. Any method may raise: the run goes on without the logger.

    run: its directory. rows: the epochs that it has done so far, as in metrics.jsonl. What the
    logger holds of later ones, which a killed run has logged but not saved, goes; what it lacks
    of these it adds. So a run that continues has no epoch twice.
    """

    @abc.abstractmethod
    def __init__(self, run: Path, rows: Sequence[Mapping]):
        """A logger of a run that begins or continues."""

    def config(self, config: dict) -> None:
        """The configuration as plain values; once each time a run begins or continues."""
        return

    @abc.abstractmethod
    def scalars(self, step: int, row: Mapping[str, float | None]) -> None:
        """An epoch that ends with `step`: losses, validation scores, `lr` and `images_per_s`.

        None is a value that is not finite.
        """

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        """PNG files by name, at the end of the run."""
        return

    def close(self) -> None:
        """Everything is written."""
        return


def names() -> list[str]:
    """Names of all loggers."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def chosen(entries: Iterable[str]) -> list[str]:
    """Names in `runtime.loggers`, each once; one entry may hold several, as in `csv,wandb`."""
    return list(dict.fromkeys(name.strip() for entry in entries for name in entry.split(",")))


def check(entries: Iterable[str]) -> None:
    """Raises UserError for the first that is unknown, or whose package is not installed."""
    for name in chosen(entries):
        if name not in names():
            hint = did_you_mean(name, names())
            raise UserError(
                f"runtime.loggers: {name!r} is unknown{hint} There are: {', '.join(names())}."
            )
        package = _module(name).PACKAGE
        if package and not _installed(package):
            raise UserError(
                f"runtime.loggers: {name} needs {package}; pip install 'feedseg[{name}]'"
            )


def _installed(package: str) -> bool:
    """Not fooled by a folder of that name in the present one, such as `wandb`."""
    spec = find_spec(package)
    return bool(spec and spec.origin)


def _module(name: str):
    return importlib.import_module(f"{__name__}.{name}")


class Loggers:
    """The loggers of a run. One that fails says so once and is off from then on.

    As a context it closes them. Of several processes only process 0 logs.
    """

    def __init__(
        self, entries: Sequence[str], run: Path, config: dict, rows: Sequence[Mapping], log: Log
    ):
        self._log = log
        self._on: dict[str, Logger] = {}
        for name in chosen(entries if processes.is_first() else ()):
            try:
                self._on[name] = _module(name).Logger(run, rows)
            except Exception as error:
                self._warn(name, error)
        self._each("config", config)

    def scalars(self, step: int, row: Mapping[str, float]) -> None:
        """An epoch; values that are not finite become None, as in metrics.jsonl."""
        known = {key: value for key, value in row.items() if value is not None}
        plain = {key: value if math.isfinite(value) else None for key, value in known.items()}
        self._each("scalars", step, dict.fromkeys(row) | plain)

    def images(self, step: int, pictures: Iterable[Path]) -> None:
        """PNG files, each under its name without the ending; those that are not there are not."""
        found = {path.stem: path for path in pictures if files.is_file(path)}
        self._each("images", step, found)

    def _each(self, method: str, *arguments) -> None:
        for name, logger in list(self._on.items()):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                del self._on[name]
                self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        self._log(
            f"warning: logger {name} is off from now on ({type(error).__name__}: "
            f"{one_line(error)}); metrics.jsonl has all epochs"
        )

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(self, *_) -> None:
        self._each("close")
