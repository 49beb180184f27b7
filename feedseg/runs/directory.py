"""A run directory: its files, and the rule that it belongs to one configuration and its data.

Of several processes only process 0 looks and writes; all must call the methods of a run, and get
its answers.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from feedseg.runs import config as configs
from feedseg.runtime import files, processes
from feedseg.runtime.errors import UserError


class RunDir:
    """Paths of a run and the reading and writing of its small files."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"

    def check(self, config: ConfigDict) -> None:
        """Raises UserError listing the differences if a run with another config is here."""
        processes.check_same("the configuration", files.to_json(configs.to_plain(config)))
        processes.check_same("the run directory", str(self.path))
        processes.from_first(self._check, config)

    def _check(self, config: ConfigDict) -> None:
        if not self.config.exists():
            return
        old, new = read_json(self.config), configs.to_plain(config)
        changed = configs.differences(configs.identity(old), configs.identity(new))
        if changed:
            raise UserError(
                f"{self.path} holds a run with another configuration ({'; '.join(changed)}); "
                "choose another --workdir or delete that folder"
            )

    def claim(self, config: ConfigDict, facts: dict) -> None:
        """Store the config and the facts of its data (`dataset.describe`).

        Raises UserError if the images, labels or limits have changed since the run began, or are
        not the same in all processes.
        """
        processes.check_same("the data set", facts["fingerprint"])
        processes.from_first(self._claim, config, facts)

    def _claim(self, config: ConfigDict, facts: dict) -> None:
        if self.data.exists() and read_json(self.data)["fingerprint"] != facts["fingerprint"]:
            raise UserError(
                f"the data of {self.path} have changed since this run began; choose another "
                "--workdir or bring the old data back"
            )
        files.write_json_atomic(self.data, facts)
        files.write_json_atomic(self.config, configs.to_plain(config))

    def finished(self) -> dict | None:
        """The content of result.json, None while the run is not finished."""
        return processes.from_first(
            lambda: read_json(self.result) if self.result.exists() else None
        )

    def rows(self) -> list[dict]:
        """The epochs logged so far."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def append(self, row: dict) -> None:
        """Add an epoch to metrics.jsonl. Raises SaveFailed if it cannot be written."""
        processes.from_first(files.append_line, self.metrics, files.to_json(row))


def read_json(path: Path) -> dict:
    """A JSON file; UserError naming it if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the directory of a run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it from a copy") from None


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run directories among and below the paths, each once; the content of a run is not searched.

    A path may also be the `result.json` of a run. Raises UserError if a path is not there.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path}: not found; name run directories or folders that hold them")
        for folder in _below(path if path.is_dir() else path.parent):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def is_run(folder: Path) -> bool:
    """Whether a folder holds the files of a run."""
    directory = RunDir(folder)
    return directory.config.is_file() or directory.result.is_file()


def _below(folder: Path) -> list[Path]:
    if is_run(folder):
        return [folder]
    inner = sorted(each for each in folder.iterdir() if each.is_dir())
    return [found for each in inner for found in _below(each)]
