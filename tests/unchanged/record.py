"""Writes the facts down: `python -m tests.unchanged.record`, in a checkout that is to be kept.

Also makes `stopped.zip`, a run that was told to stop within its second epoch.
"""

import json
import shutil
import tempfile
from pathlib import Path

from feedseg.runtime.errors import Stopped
from feedseg.runtime.logs import Log
from feedseg.runtime.signals import Stop
from feedseg.training import train
from tests.support import tiny
from tests.unchanged import facts

HERE = Path(__file__).parent
STOP_AFTER = 6  # steps, of 4 an epoch


def stop_within_an_epoch(workdir: Path) -> None:
    """The run of `tiny`, stopped."""
    calls, requested = [], Stop.requested

    def stopping(stop: Stop) -> bool:
        calls.append(None)
        return len(calls) == STOP_AFTER

    Stop.requested = stopping
    try:
        train.run(tiny.get_config(), workdir, Log())
    except Stopped:
        pass
    finally:
        Stop.requested = requested


def record() -> None:
    """Write facts.json and the stopped run."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        content = {
            "config_hashes": facts.config_hashes(),
            "planned_runs": facts.planned_runs(),
            "parameter_trees": facts.parameter_trees(),
            "command_options": facts.command_options(),
            "bundled_models": facts.fractions_of_bundled_models(),
            "trainings": {name: facts.training(name, root / name) for name in facts.TRAININGS},
        }
        train.run(tiny.get_config(), root / "whole", Log())
        content["whole_run"] = facts.summary(root / "whole")
    (HERE / "facts.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        stop_within_an_epoch(Path(folder) / "run")
        (Path(folder) / "run" / ".lock").unlink()
        shutil.make_archive(str(HERE / "stopped"), "zip", Path(folder) / "run")


if __name__ == "__main__":
    record()
