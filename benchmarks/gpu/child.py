"""The process of one piece: `python -m benchmarks.gpu.child NAME FILE SECONDS [--dry]`."""

import importlib
import platform
import shlex
import sys
from pathlib import Path

from benchmarks.gpu.recorder import Recorder


def main(name: str, file: str, seconds: str, *flags: str) -> None:
    recorder = Recorder(Path(file), name, float(seconds), dry="--dry" in flags)
    from benchmarks import measure

    recorder.facts(
        **measure.machine(),
        command=shlex.join(["python", "-m", "benchmarks.gpu", "--only", name, *flags]),
        platform=platform.platform(),
    )
    module = importlib.import_module(f"benchmarks.gpu.{name}")
    module.measure_all(recorder)
    recorder.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
