"""The runs of a sweep: what each is, its command line and its place; the file that stores them."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from feedseg.runs import config as configs
from feedseg.runtime import files
from feedseg.runtime.errors import UserError


class Trial(NamedTuple):
    """A run: configuration, changed keys (KEY=VALUE) and directory."""

    config: str
    overrides: tuple[str, ...]
    workdir: Path

    def arguments(self) -> list[str]:
        """The command line of `feedseg.main`."""
        changes = [f"--config.{change}" for change in self.overrides]
        return [f"--config={self.config}", *changes, f"--workdir={self.workdir}"]


def placed(text: str, changes: Sequence[str], root: Path) -> Trial:
    """A run in ROOT/EXPERIMENT/NAME, with a short hash of the changed keys if there are any.

    Raises UserError for a wrong configuration.
    """
    unplaced = Trial(text, tuple(changes), Path())
    config, _ = configs.parse_flags(unplaced.arguments()[:-1])
    name = config.run_name
    if changes:
        name += "-" + hashlib.sha256(" ".join(changes).encode()).hexdigest()[:8]
    return unplaced._replace(workdir=root / config.experiment / name)


Task = tuple[Trial, ...]  # what one process makes: a run, or several as one program


def command(task: Task) -> list[str]:
    """The command line of the process that makes a task."""
    if len(task) == 1:
        return [sys.executable, "-m", "feedseg.main", *task[0].arguments()]
    each = [json.dumps(trial.arguments()) for trial in task]
    return [sys.executable, "-m", "feedseg.training.stack", *each]


def write_plan(path: Path, tasks: Sequence[Task]) -> None:
    """Store a sweep: JSON `{"tasks": [[{"config", "overrides", "workdir"}, ...], ...]}`."""
    plain = [[t._asdict() | {"workdir": str(t.workdir)} for t in task] for task in tasks]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json_atomic(path, {"tasks": plain})


def read_plan(path: Path) -> list[Task]:
    """The tasks of a stored sweep. Raises UserError naming the file if it holds none."""
    try:
        tasks = json.loads(Path(path).read_text("utf-8"))["tasks"]
        return [
            tuple(Trial(t["config"], tuple(t["overrides"]), Path(t["workdir"])) for t in task)
            for task in tasks
        ]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `feedseg reproduce TABLE --plan FILE` writes one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no file of a sweep ({error!r}); write it again") from None
