"""The steps and validations of an epoch without the loop around them, for `benchmarks.epoch`.

python -m benchmarks.bare_epoch --config configs/unet.py

Prints one JSON line: seconds of each of an epoch's steps and of three validations, waited for.
"""

import json
import sys
import tempfile
from pathlib import Path
from timeit import repeat

from feedseg.runs import config as configs
from feedseg.runs.directory import RunDir
from feedseg.runtime import xla
from feedseg.training import batched
from feedseg.training.setup import set_up
from feedseg.training.validate import confusion_matrices


def main() -> None:
    config, _ = configs.parse_flags(sys.argv[1:])
    xla.keep_programs()
    with tempfile.TemporaryDirectory() as folder:
        setup, state = set_up(config, RunDir(Path(folder)), lambda text: None)
    program = batched.Program([setup], [state])

    def dispatch() -> None:
        program.dispatch()
        program.losses(0)

    def validate() -> None:
        (now,) = program.states()
        confusion_matrices(setup.eval_step, now.variables(), setup.val_items, setup.plan.eval_batch)

    dispatch(), validate()  # they compile
    per_dispatch = setup.plan.per_dispatch
    times = repeat(dispatch, number=1, repeat=setup.plan.per_epoch // per_dispatch)
    figures = {
        "steps": setup.plan.per_epoch,
        "batch": setup.plan.batch,
        "step_s": [time / per_dispatch for time in times],
        "validation_s": repeat(validate, number=1, repeat=3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
