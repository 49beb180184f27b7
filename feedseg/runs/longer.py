"""A finished run that trains on: its command again, with a larger `train.epochs`.

The result of the shorter run is kept beside the new one, as `result-of-3-epochs.json`. By these
files the checkpoints of the shorter run are known as the run's own.
"""

import re
from pathlib import Path

from feedseg.runs import config as configs
from feedseg.runtime import files


def goes_on(old: dict, new: dict) -> bool:
    """Whether plain config `new` is `old` with more epochs, and nothing else that matters."""
    before, after = old["train"].get("epochs"), new["train"]["epochs"]
    if not isinstance(before, int) or before >= after:
        return False
    return configs.identity(_with_epochs(old, after)) == configs.identity(new)


def keep_result(result: Path, epochs: int) -> None:
    """Copy the result of a run of so many epochs to the name under which it stays.

    Raises SaveFailed if it cannot be written.
    """
    kept = result.with_name(f"result-of-{epochs}-epochs.json")
    files.write_text_atomic(kept, result.read_text("utf-8"))


def shorter(folder: Path, config: dict) -> dict[str, int]:
    """Epochs, by configuration hash, of the shorter runs that a run has gone on from."""
    names = (re.fullmatch(r"result-of-(\d+)-epochs\.json", p.name) for p in folder.iterdir())
    epochs = sorted(int(name[1]) for name in names if name)
    earlier = [each for each in epochs if each < config["train"]["epochs"]]
    return {configs.config_hash(_with_epochs(config, each)): each for each in earlier}


def _with_epochs(config: dict, epochs: int) -> dict:
    return {**config, "train": {**config["train"], "epochs": epochs}}
