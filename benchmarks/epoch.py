"""What a training costs beside its steps: epochs, the first step, from command to result.

    python -m benchmarks.epoch --output results/benchmarks/epoch.json
    python -m benchmarks.epoch --only overhead -- --config configs/unet.py --config.train.epochs=3

overhead    an epoch of a run / its steps, timed alone in a process like it; with and without the
            validation
first       from the start of a fresh process to the end of its first step, with an empty and with
            a filled compilation cache (JAX_COMPILATION_CACHE_DIR)
race        5 epochs of ssTEM, U-Net 8-128, from the command to the result, feedseg and PyTorch
            (benchmarks/peers/train.py) in turns, feedseg also with a filled cache

What follows `--` goes to feedseg. Needs the ssTEM data set in FEEDSEG_DATA.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import seconds
from configs import common
from feedseg import datasets

PARTS = ("overhead", "first", "race")
UNET = ["--config=configs/unet.py"]
# What the PyTorch script does not do: scores over 8 orientations and of the membranes.
PLAIN = ["--config.evaluate.dihedral=False", "--config.evaluate.membrane="]


# The overhead of an epoch -----------------------------------------------------------------------


def overhead(arguments: list[str], folder: Path) -> dict:
    """A run beside its bare steps and validations before and after it, all in fresh processes.

    arguments: of feedseg; at least two epochs, as the first one has the compilation.
    """
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    before = bare(arguments, cache)
    epoch = statistics.median(epochs([*arguments, f"--workdir={folder / 'run'}"], cache))
    after = bare(arguments, cache)
    step, validation = (
        statistics.median(before[key] + after[key]) for key in ("step_s", "validation_s")
    )
    bare_epoch = before["steps"] * step
    return {
        "steps": before["steps"],
        "batch": before["batch"],
        "step_s": step,
        "validation_s": validation,
        "epoch_s": epoch,
        "overhead": epoch / bare_epoch,
        "overhead_without_validation": (epoch - validation) / bare_epoch,
    }


def bare(arguments: list[str], cache: dict[str, str]) -> dict:
    """What `benchmarks.bare_epoch` says."""
    command = [sys.executable, "-m", "benchmarks.bare_epoch", *arguments]
    return json.loads(output(command, **cache).splitlines()[-1])


def epochs(arguments: list[str], cache: dict[str, str]) -> list[float]:
    """Seconds of each epoch of a run but the first, by when it says that they end."""
    command = [sys.executable, "-m", "feedseg.main", *arguments]
    ends = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | cache
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch "):
                ends.append(time.perf_counter())
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return [end - begin for begin, end in pairwise(ends)]


# The first step ---------------------------------------------------------------------------------


def first_step(arguments: list[str], cache: Path) -> dict:
    """Seconds from the start of a fresh process to the end of its first step, and its parts."""
    command = [sys.executable, "-m", "benchmarks.first_step", *arguments]
    begun = time.time()
    moments = json.loads(output(command, JAX_COMPILATION_CACHE_DIR=str(cache)).splitlines()[-1])
    names, values = list(moments), [begun, *moments.values()]
    parts = {f"{name}_s": b - a for name, a, b in zip(names, values, values[1:], strict=False)}
    return parts | {"total_s": values[-1] - begun}


# From command to result -------------------------------------------------------------------------


def output(command: list[str], **environment: str) -> str:
    """What a command prints; exits with it if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed_command(command: list[str], **environment: str) -> float:
    """Wall time of a command, seconds."""
    return seconds(lambda: output(command, **environment))


def race(stack: Path, epochs: int, repeats: int, folder: Path, changes: list[str]) -> dict:
    """Both libraries from command to result, in turns; scores as found.

    stack: the data set's folder stack1. changes: further arguments of feedseg.
    """
    own = [sys.executable, "-m", "feedseg.main", *UNET, *PLAIN, f"--config.train.epochs={epochs}"]
    other = [sys.executable, "-m", "benchmarks.peers.train", f"--data={stack}"]
    times: dict[str, list[float]] = {"feedseg": [], "feedseg_cached": [], "torch": []}
    for repeat in range(repeats):
        cache = str(folder / f"cache{repeat}")
        for name in ("feedseg", "feedseg_cached", "torch"):
            workdir = f"--workdir={folder / f'{name}{repeat}'}"
            if name == "torch":
                command, more = [*other, f"--epochs={epochs}", workdir], {}
            else:
                command, more = [*own, *changes, workdir], {"JAX_COMPILATION_CACHE_DIR": cache}
            times[name].append(timed_command(command, **more))
    median = {name: statistics.median(values) for name, values in times.items()}
    results = {
        name: json.loads((folder / f"{name}0" / "result.json").read_text())
        for name in ("feedseg", "torch")
    }
    return {
        "epochs": epochs,
        "seconds": median,
        "ratio": median["torch"] / median["feedseg"],
        "ratio_cached": median["torch"] / median["feedseg_cached"],
        "test_miou": {
            "feedseg": results["feedseg"]["metrics"]["final"]["miou"],
            "torch": results["torch"]["test"]["miou"],
        },
    }


# Command line -----------------------------------------------------------------------------------


def find_stack() -> Path:
    """The folder stack1 of the ssTEM data set."""
    config = common.base()
    common.use_dataset(config, "sstem")
    root = Path(datasets.find_root("sstem", config.data_dir))
    return root / "stack1" if (root / "stack1").is_dir() else root


def measure_part(part: str, options: argparse.Namespace, folder: Path) -> dict:
    """One of the three comparisons."""
    arguments = options.arguments or [*UNET, *PLAIN]
    if part == "overhead":
        return overhead([*arguments, f"--config.train.epochs={options.epochs}"], folder)
    if part == "first":
        cache = folder / "cache"
        cold = first_step(arguments, cache)
        warm = [first_step(arguments, cache) for _ in range(options.repeats)]
        middle = sorted(warm, key=lambda row: row["total_s"])[len(warm) // 2]
        return {"cold": cold, "warm": middle}
    return race(find_stack(), options.epochs, options.repeats, folder, options.arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--epochs", type=int, default=5, help="of the runs, at least 2 (5)")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind (3)")
    parser.add_argument("--output", type=Path, help="JSON file that keeps the cases")
    own, rest = sys.argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, rest = own[:cut], own[cut + 1 :]
    options = parser.parse_args(own)
    options.arguments = rest
    if options.epochs < 2 or options.repeats < 1:
        parser.error("--epochs starts at 2 (the first one compiles), --repeats at 1")

    line = measure.Lines(options.output, ("case", "network", "device"))
    for part in options.only:
        with tempfile.TemporaryDirectory(prefix="feedseg-epoch-") as folder:
            found = measure_part(part, options, Path(folder))
        line(case=part, network="unet", **found, **measure.machine())


if __name__ == "__main__":
    main()
