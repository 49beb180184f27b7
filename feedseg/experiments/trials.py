"""The runs of a sweep, their command lines and directories, and the file that stores them."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from feedseg.runs import config as configs
from feedseg.runtime import files, json_files
from feedseg.runtime.errors import UserError


class Trial(NamedTuple):
    """A run: configuration, overrides (KEY=VALUE) and directory."""

    config: str
    overrides: tuple[str, ...]
    workdir: Path

    def arguments(self) -> list[str]:
        """The command line of `feedseg.main`."""
        changes = [f"--config.{change}" for change in self.overrides]
        return [f"--config={self.config}", *changes, f"--workdir={self.workdir}"]


def placed(text: str, overrides: Sequence[str], root: Path) -> Trial:
    """A run in ROOT/EXPERIMENT/NAME, with a short hash of the overrides, if any.

    Raises UserError for an invalid configuration.
    """
    unplaced = Trial(text, tuple(overrides), Path())
    config, _ = configs.parse_flags(unplaced.arguments()[:-1])
    name = config.run_name
    if overrides:
        name += "-" + hashlib.sha256(" ".join(overrides).encode()).hexdigest()[:8]
    return unplaced._replace(workdir=root / config.experiment / name)


Task = tuple[Trial, ...]  # the runs of one process: one, or several as one program


def command(task: Task) -> list[str]:
    """The command line of a task's process."""
    if len(task) == 1:
        return [sys.executable, "-m", "feedseg.main", *task[0].arguments()]
    arguments = [json.dumps(trial.arguments()) for trial in task]
    return [sys.executable, "-m", "feedseg.training.stack", *arguments]


def write_plan(path: Path, tasks: Sequence[Task]) -> None:
    """Store a sweep: JSON `{"tasks": [[{"config", "overrides", "workdir"}, ...], ...]}`."""
    plain = [[t._asdict() | {"workdir": str(t.workdir)} for t in task] for task in tasks]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json_atomic(path, {"tasks": plain})


def read_plan(path: Path) -> list[Task]:
    """The tasks of a stored sweep. Raises UserError naming the file if it holds none."""
    try:
        tasks = json_files.read(path)["tasks"]
        return [
            tuple(Trial(t["config"], tuple(t["overrides"]), Path(t["workdir"])) for t in task)
            for task in tasks
        ]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `feedseg reproduce TABLE --plan FILE` writes one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not the file of a sweep ({error!r}); write it again") from None
