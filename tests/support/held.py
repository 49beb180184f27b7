"""The tiny configuration for runs that a test wants to meet in the middle.

FEEDSEG_TEST_FOLDER names a folder. A run in a job of SLURM notes there the GPUs it was given, and
after step `AT` it waits while the file `hold` is there, or until it is told to stop;
`reached-INDEX` says that it waits. It draws no figures.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import tiny

AT = 6  # in the second of three epochs


def get_config(arg=None):
    folder = os.environ.get("FEEDSEG_TEST_FOLDER")
    if folder and "SLURM_STEP_ID" in os.environ:
        index = os.environ.get("SLURM_ARRAY_TASK_ID", "0")  # no array: submitit with one task
        note = f"{os.environ['SLURMD_NODENAME']} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
        (Path(folder) / f"gpu-{index}").write_text(note)
        _wait_in_the_middle(Path(folder), index)
    return tiny.get_config(arg)


def _wait_in_the_middle(folder: Path, index: str) -> None:
    from feedseg.runtime.signals import Stop
    from feedseg.training import result

    if hasattr(Stop, "calls"):
        return
    result.draw = lambda *_: None
    Stop.calls, requested = 0, Stop.requested

    def waiting(stop: Stop) -> bool:
        Stop.calls += 1
        if Stop.calls == AT and (folder / "hold").exists():
            (folder / f"reached-{index}").touch()
            while (folder / "hold").exists() and not stop.signal_name:
                time.sleep(0.05)
        return requested(stop)

    Stop.requested = waiting
