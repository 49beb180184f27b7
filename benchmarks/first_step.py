"""A run until its first step is done, for `benchmarks.epoch`; prints the time after each part.

python -m benchmarks.first_step --config configs/unet.py
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from feedseg.runs import config as configs
from feedseg.runs.directory import RunDir
from feedseg.training import batched
from feedseg.training.setup import set_up


def main() -> None:
    moments = {"imports": time.time()}
    config, _ = configs.parse_flags(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        job, state = set_up(config, RunDir(Path(folder)), lambda text: None)
        moments["data_and_state"] = time.time()
        program = batched.Program([job], [state])
        program.dispatch()
        program.losses(0)
        moments["compile_and_step"] = time.time()
    print(json.dumps(moments))


if __name__ == "__main__":
    main()
