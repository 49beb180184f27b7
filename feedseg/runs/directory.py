"""A run directory: its files, and the rule that it belongs to one configuration and its data.

Of several processes only process 0 looks and writes; all must call the methods of a run, and get
its answers.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from feedseg.datasets.common.dataset import Dataset
from feedseg.runs import config as configs
from feedseg.runtime import files, processes
from feedseg.runtime.errors import SaveFailed, UserError


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

    def claim(self, config: ConfigDict, dataset: Dataset) -> None:
        """Store the config and what the data are; nothing is stored before all of it is usable.

        Raises UserError if the images, labels or limits have changed since the run began, or are
        not the same in all processes.
        """
        facts = describe(dataset, config)
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
        processes.from_first(self._append, row)

    def _append(self, row: dict) -> None:
        try:
            with self.metrics.open("a", encoding="utf-8") as stream:
                stream.write(files.to_json(row) + "\n")
        except OSError as error:
            raise SaveFailed(
                f"cannot write {self.metrics}: {error.strerror or error}; free space or mend the "
                "permissions, then run the same command again"
            ) from error


def read_json(path: Path) -> dict:
    """A JSON file; UserError naming it if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the directory of a run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it from a copy") from None


def describe(dataset: Dataset, config: ConfigDict) -> dict:
    """What prediction and reports need to know about the data."""
    return {
        "name": dataset.name,
        "class_names": list(dataset.class_names),
        "class_colors": [list(map(int, color)) for color in dataset.class_colors],
        "channels": dataset.images.shape[-1],
        "dtype": str(dataset.images.dtype),
        "items": len(dataset.images),
        "sources": len(set(dataset.source_ids.tolist())),
        "size_px": list(dataset.images.shape[1:3]),
        "class_fractions": dataset.class_fractions().round(6).tolist(),
        "normalization": config.data.normalization,
        "percentiles": list(config.data.percentiles),
        "fingerprint": dataset.fingerprint(),
    }
