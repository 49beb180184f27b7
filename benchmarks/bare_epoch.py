"""The steps and validations of an epoch without the loop around them, for `benchmarks.epoch`.

python -m benchmarks.bare_epoch --config configs/unet.py

Prints one JSON line: seconds of each of an epoch's steps and of three validations, waited for.
"""

import json
import sys
import tempfile
from pathlib import Path
from timeit import repeat

from feedseg.evaluation import test_split
from feedseg.runs import config as configs
from feedseg.runs import directory
from feedseg.runtime import xla
from feedseg.training import batched
from feedseg.training.setup import set_up


def main() -> None:
    config, _ = configs.parse_flags(sys.argv[1:])
    xla.keep_programs()
    with tempfile.TemporaryDirectory() as folder:
        job, state = set_up(config, directory.RunDir(Path(folder)), lambda text: None)
    program = batched.Program([job], [state])

    def dispatch() -> None:
        program.dispatch()
        program.losses(0)

    def validate() -> None:
        (now,) = program.states()
        test_split.confusion_matrices(job.eval_step, now.variables(), job.val_items, job.eval_batch)

    dispatch(), validate()  # they compile
    per_dispatch = job.steps_per_dispatch
    times = repeat(dispatch, number=1, repeat=job.steps_per_epoch // per_dispatch)
    found = {
        "steps": job.steps_per_epoch,
        "batch": job.batch,
        "step_s": [time / per_dispatch for time in times],
        "validation_s": repeat(validate, number=1, repeat=3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
