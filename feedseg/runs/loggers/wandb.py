"""Weights & Biases: a run of the project `feedseg`, or of `WANDB_PROJECT`, with its own variables.

With WANDB_MODE=offline the files in `wandb/` of the run's directory wait for `wandb sync`.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.runs import loggers
from feedseg.runtime import files

PACKAGE = "wandb"


class Logger(loggers.Logger):
    """A run that continues is the same one there: `wandb/feedseg.json` holds its id and last step.

    What was sent cannot be taken back, so an epoch that a killed run repeats is not sent again:
    it has the same bits.
    """

    def __init__(self, run: Path, rows: Sequence[Mapping]):
        import wandb

        self._wandb, self._notes = wandb, run / "wandb" / "feedseg.json"
        self._notes.parent.mkdir(exist_ok=True)
        known = json.loads(self._notes.read_text("utf-8")) if self._notes.exists() else {}
        self._known = {"id": secrets.token_hex(4), "step": 0} | known
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "feedseg"),
            name=run.resolve().name,
            id=self._known["id"],
            dir=str(run),
            resume="allow",
            reinit="create_new",  # several runs may share a process
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )
        for row in rows:
            self.scalars(row["step"], row)

    def config(self, config: dict) -> None:
        self._run.config.update(config, allow_val_change=True)

    def scalars(self, step: int, row: Mapping[str, float | None]) -> None:
        if step > self._known["step"]:
            known = {key: value for key, value in row.items() if value is not None}
            self._run.log(known, step=step)
            self._known["step"] = step
            files.write_json_atomic(self._notes, self._known)

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        shown = {name: self._wandb.Image(str(path)) for name, path in pictures.items()}
        self._run.log(shown, step=step)

    def close(self) -> None:
        self._run.finish()
