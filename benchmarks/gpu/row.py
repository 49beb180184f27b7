"""The process that makes the runs of a row, told what to do line by line.

    python -m benchmarks.gpu.row FORM RUN RUN ...

RUN: the arguments of `feedseg.main` as a JSON list, with a workdir. It compiles and says `ready`;
`time` makes it time its steps, its validation and its saving; a number makes it train for so many
epochs. Every answer is one line of JSON.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from feedseg.experiments.trials import Trial

_STEPS, _WARM_UPS = 8, 3
_STOP_S = 10.0  # that a run gets to save and stop


class Row:
    """Such a process, seen from the piece that has started it."""

    def __init__(self, runs: Sequence[Trial], form: str, log: Path):
        arguments = [json.dumps(run.arguments()) for run in runs]
        with log.open("wb") as messages:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.row", form, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
            )
        self._log, self._text = log, b""

    def ask(self, line: str) -> None:
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError:  # it has ended: its answer says so
            pass

    def answer(self, seconds: float) -> dict:
        """Its next answer; `error` if it has ended or has none within the time."""
        ends = time.monotonic() + seconds
        while b"\n" not in self._text:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return {"error": f"no answer within {seconds:.0f} s"}
            some = os.read(self._process.stdout.fileno(), 2**16)
            if not some:
                return {"error": f"ended: {self._last()}"}
            self._text += some
        line, self._text = self._text.split(b"\n", 1)
        return json.loads(line)

    def stop(self) -> None:
        """Ask for a stop; the runs save what they have."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _last(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.poll()}"


def main(form: str, *texts: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed goes to the log
    runs = [json.loads(text) for text in texts]

    def say(**answer) -> None:
        print(json.dumps(answer), file=answers)

    begun = time.monotonic()
    timed = _Timed(form, runs)
    say(ready=True)
    begin_s = time.monotonic() - begun
    for line in sys.stdin:
        if line.strip() == "time":
            say(**timed.times(), begin_s=begin_s)
            continue
        del timed  # its arrays
        say(outcomes=_train(form, runs, int(line)))
        return


def _configured(arguments: Sequence[str], form: str, epochs: int):
    from feedseg.runs import config as configs

    config, workdir = configs.parse_flags(
        [*arguments, f"--config.runtime.together={form}", "--config.runtime.progress=False"]
    )
    recipe = config.train.epochs
    config.train.epochs = epochs
    return config, Path(workdir), recipe


class _Timed:
    """The program of a row, compiled, for timing only."""

    def __init__(self, form: str, runs: Sequence[Sequence[str]]):
        from feedseg.runs.directory import RunDir
        from feedseg.runtime import xla
        from feedseg.training import batched
        from feedseg.training.setup import set_up

        xla.keep_programs()
        self._folder = tempfile.TemporaryDirectory()
        parts = []
        for number, arguments in enumerate(runs):
            config, _, self._recipe = _configured(arguments, form, 2)
            directory = RunDir(Path(self._folder.name) / str(number))
            directory.path.mkdir()
            parts.append(set_up(config, directory, lambda text: None))
        self._setups = [each for each, _ in parts]
        self._program = batched.Program(self._setups, [state for _, state in parts])
        for _ in range(_WARM_UPS):
            self._step()
        self._validate(), self._save()

    def times(self) -> dict:
        """Seconds of an epoch: of the device alone, and of all; of what begins and ends a run."""
        setup = self._setups[0]
        per_epoch = setup.plan.per_epoch // setup.plan.per_dispatch
        step_s = min(_seconds(self._step) for _ in range(_STEPS))
        validation_s, save_s = _seconds(self._validate), _seconds(self._save)
        device_s = per_epoch * step_s + len(self._setups) * validation_s
        test_s = validation_s * len(setup.split.test) / max(1, len(setup.split.val))
        return {
            "step_s": step_s,
            "validation_s": validation_s,
            "save_s": save_s,
            "device_s": device_s,
            "epoch_s": device_s + len(self._setups) * save_s,
            "end_s": len(self._setups) * (5 + 10 * test_s),  # eight orientations, figures
            "epochs": self._recipe,
        }

    def _step(self) -> None:
        self._program.dispatch()
        self._program.losses(0)

    def _validate(self) -> None:
        from feedseg.training import validate

        setup, state = self._setups[0], self._program.states()[0]
        validate.confusion_matrices(
            setup.eval_step, state.variables(), setup.val_items, setup.plan.eval_batch
        )

    def _save(self) -> None:
        from feedseg.runs.checkpoint import Checkpoints

        with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), keep=1) as kept:
            kept.save(1, self._program.states()[0].variables(), {}, final=True)


def _seconds(action) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def _train(form: str, runs: Sequence[Sequence[str]], epochs: int) -> list[str]:
    """Train the runs as one program; what became of each."""
    from feedseg.runtime.errors import FeedsegError
    from feedseg.runtime.logs import Log
    from feedseg.training import train

    orders = []
    for arguments in runs:
        config, workdir, _ = _configured(arguments, form, epochs)
        orders.append(train.RunSpec(config, workdir, Log(f"{workdir.name}: ")))
    try:
        outcomes = train.run_together(orders)
    except FeedsegError as error:  # stopped: all are saved
        outcomes = [error] * len(orders)
    return [str(each) if isinstance(each, FeedsegError) else "done" for each in outcomes]


if __name__ == "__main__":
    main(*sys.argv[1:])
