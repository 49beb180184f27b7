"""A run directory: its files, and the rule that it belongs to one configuration and its data.

Of several processes only process 0 looks and writes; all must call the methods of a run, and get
its answers.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from feedseg.runs import config as configs
from feedseg.runs import longer
from feedseg.runtime import files, json_files, processes
from feedseg.runtime.errors import SaveFailed, UserError, one_line


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
        self._known: dict[str, str] = {}  # `identity`

    def stored_config(self) -> ConfigDict:
        """The configuration of the run; UserError naming its file if it cannot be used."""
        plain = read_json(self.config)
        try:
            configs.check(plain)
        except UserError as error:
            raise UserError(f"{self.config}: {error}; restore it from a copy") from None
        return configs.from_plain(plain)

    def check(self, config: ConfigDict) -> None:
        """Raises UserError listing the differences if a run with another config is here.

        A finished run may have more epochs than before (`longer`).
        """
        processes.check_same("the configuration", files.to_json(configs.to_plain(config)))
        processes.check_same("the run directory", str(self.path))
        processes.from_first(self._check, config)

    def _check(self, config: ConfigDict) -> None:
        if not self.config.exists():
            return
        old, new = read_json(self.config), configs.to_plain(config)
        changed = configs.differences(configs.identity(old), configs.identity(new))
        if changed and not (self.result.exists() and longer.goes_on(old, new)):
            raise UserError(
                f"{self.path} holds a run with another configuration ({'; '.join(changed)}); "
                "choose another --workdir or delete that folder"
            )

    def claim(self, config: ConfigDict, facts: dict) -> None:
        """Store the config and the facts of its data (`facts.describe`).

        The result of a shorter run that goes on is kept under another name before that.
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
        plain = configs.to_plain(config)
        if self.config.exists() and longer.goes_on(old := read_json(self.config), plain):
            longer.keep_result(self.result, old["train"]["epochs"])
        files.write_sealed(self.data, facts)
        files.write_sealed(self.config, plain)
        self.result.unlink(missing_ok=True)  # what is claimed is not finished: this one is kept

    def require_there(self) -> None:
        """Raises SaveFailed if the directory was deleted or renamed while the run goes on."""
        processes.from_first(self._require_there)

    def _require_there(self) -> None:
        if not self.config.exists():
            raise self.gone()

    def gone(self) -> SaveFailed:
        """The error of a run whose directory is no longer there."""
        return SaveFailed(
            f"{self.path}: was deleted or renamed while the run wrote to it; the run ends here"
        )

    def identity(self) -> dict[str, str]:
        """Hashes of the configuration and of the data, which checkpoints and results carry.

        Read once: a run knows what it is when its files are gone.
        """
        if not self._known:
            self._known = processes.from_first(self._identity)
        return self._known

    def _identity(self) -> dict[str, str]:
        return {
            "config_hash": configs.config_hash(read_json(self.config)),
            "data_hash": read_json(self.data)["fingerprint"],
        }

    def require_own(self, path: Path, facts: dict) -> None:
        """Raises UserError if facts in a file of the run are those of another one (`require_same`).

        Those of a shorter run that this one goes on from are its own.
        """
        own = self.identity()
        if self.went_on_from(facts):
            facts = {**facts, "config_hash": own["config_hash"]}
        require_same(path, facts, own)

    def went_on_from(self, facts: dict) -> int:
        """Epochs of the shorter run that a file with these facts is of; 0: of no shorter one."""
        return processes.from_first(self._earlier, facts)

    def _earlier(self, facts: dict) -> int:
        known = longer.shorter(self.path, read_json(self.config))
        return known.get(facts.get("config_hash"), 0)

    def finished(self, config: ConfigDict | None = None) -> dict | None:
        """The content of result.json, None while the run is not finished.

        config: None too where it asks for more epochs than those of the run.
        Raises UserError if it is damaged, or the result of another run.
        """
        return processes.from_first(self._finished, config)

    def _finished(self, config: ConfigDict | None) -> dict | None:
        if not self.result.exists():
            return None
        result = read_json(self.result)
        if self.config.exists() and self.data.exists():
            if self._earlier(result):  # a kill came between the new config.json and its removal
                return None
            require_same(self.result, result, self._identity())
        if config and self.config.exists():
            more = longer.goes_on(read_json(self.config), configs.to_plain(config))
            return None if more else result
        return result

    def rows(self) -> list[dict]:
        """The epochs logged so far; lines that are torn or damaged are passed over."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        return [row for line in lines if _is_epoch(row := files.json_row(line))]

    def append(self, row: dict) -> None:
        """Add an epoch to metrics.jsonl. Raises SaveFailed if it cannot be written."""
        processes.from_first(files.append_line, self.metrics, files.to_json(row))

    def log_hash(self) -> str:
        """SHA-256 of metrics.jsonl, by which a checkpoint and a result know it; empty without."""
        return processes.from_first(self._log_hash)

    def _log_hash(self) -> str:
        try:
            return hashlib.sha256(self.metrics.read_bytes()).hexdigest()
        except FileNotFoundError:
            return ""


def _is_epoch(row: dict | None) -> bool:
    """Whether a row of metrics.jsonl is whole: numbers, or null where one is not finite."""
    numbers = (int, float, type(None))
    return bool(row) and "epoch" in row and all(isinstance(v, numbers) for v in row.values())


def require_same(path: Path, facts: dict, identity: dict[str, str]) -> None:
    """Raises UserError if the facts in a file of a run are those of another configuration or data.

    What an earlier version has not noted is not compared.
    """
    for key, value in identity.items():
        if facts.get(key, value) != value:
            what = {"config_hash": "configuration", "data_hash": "data"}[key]
            raise UserError(
                f"{path}: is of another {what} than {path.parent}; restore the file from a copy, "
                "or delete it and run the training again"
            )


_KINDS = {
    "config.json": {
        **dict.fromkeys(("model", "data", "train", "split"), dict),
        **{"experiment": str, "seed": int},
    },
    "data.json": {
        **{"class_names": list, "class_colors": list, "percentiles": list},
        **{"channels": int, "normalization": str, "fingerprint": str},
    },
    "result.json": {"metrics": dict},
}


def read_json(path: Path) -> dict:
    """A JSON object in a file, without its seal.

    Raises UserError naming the file if it is missing or damaged, which its seal shows (files of
    earlier versions have none), or lacks what a file of this name holds.
    """
    try:
        content = json_files.read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the directory of a run") from None
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise UserError(f"{path}: cannot be read ({reason}); restore it from a copy") from None
    sealed = content.get(files.SEAL)
    if sealed and sealed != files.seal(content):
        raise UserError(f"{path}: was changed, its digest is another; restore it from a copy")
    content.pop(files.SEAL, None)
    for key, kind in _KINDS.get(path.name, {}).items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{path}: lacks {key!r} or holds another type; restore it from a copy")
    return content


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
