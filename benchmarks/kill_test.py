"""Is a run that was killed again and again equal to one that never was?

    python benchmarks/kill_test.py --kills 20 --folder runs/kill_test
    python benchmarks/kill_test.py --kills 5 --stops 5 -- --config configs/unet.py

Trains once without interruption, then once more with SIGKILL (and, if asked for, SIGTERM) at
random moments of start-up, training and saving, starting the same command again each time, until
it ends by itself with exit code 0. Then compares the bytes of metrics.jsonl, the figures of
result.json and the SHA-256 of all arrays of the last and of the best checkpoint. What follows `--`
goes to `feedseg.main`.

Prints a table, writes FOLDER/kill_test.json, and exits with 1 if anything differs.
"""

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax

from feedseg.runs.checkpoint import read_tree
from feedseg.runtime.files import write_json_atomic

SMALL = (
    "--config=configs/aep_irpe.py:dataset=synthetic",
    "--config.data.crop_size=64",
    "--config.data.synthetic_count=18",
    "--config.data.synthetic_size=64",
    "--config.train.epochs=30",
    "--config.train.batch_size=4",
)
STOPPED = 75  # exit code of a run that has saved and wants to be started again
# Entries of result.json that say when, how fast and where, not what came out.
WHEN_AND_WHERE = ("seconds", "time", "date", "duration", "per_second", "workdir", "host", "started")


class Pace(NamedTuple):
    """What the uninterrupted run took: seconds to the first epoch, per epoch, in all; epochs."""

    start: float
    epoch: float
    total: float
    epochs: int


class Death(NamedTuple):
    """One interruption."""

    signal: str
    moment: str  # start-up | training | saving
    seconds: float  # since the process was started
    epochs: int  # rows in metrics.jsonl


def main() -> int:
    options = arguments()
    whole, killed = options.folder / "whole", options.folder / "killed"
    for workdir in (whole, killed):
        shutil.rmtree(workdir, ignore_errors=True)
        workdir.mkdir(parents=True)
    print(f"uninterrupted run in {whole}", flush=True)
    pace = measure(options.command, whole)
    print(
        f"  {pace.epochs} epochs in {pace.total:.1f} s: the first after {pace.start:.1f} s, "
        f"then {pace.epoch:.2f} s each\n"
        f"run with {options.kills} kills and {options.stops} stops in {killed}",
        flush=True,
    )
    deaths = torment(options, killed, pace)
    differences = compare(whole, killed)
    if len(deaths) < options.kills + options.stops:
        differences.append(f"the run ended after {len(deaths)} interruptions: give it more epochs")
    report(options, pace, deaths, differences)
    return 1 if differences else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="number of SIGKILLs (20)")
    parser.add_argument("--stops", type=int, default=0, help="number of SIGTERMs besides (0)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--folder", type=Path, default=Path("runs/kill_test"), help="for both runs")
    parser.add_argument("flags", nargs="*", help="for feedseg.main; default: a small AEP training")
    options = parser.parse_args()
    options.command = [sys.executable, "-m", "feedseg.main", *(options.flags or SMALL)]
    return options


# Running ----------------------------------------------------------------------------------------


def start(command: list[str], workdir: Path) -> subprocess.Popen:
    """The training in a process group of its own, its output appended to a log."""
    with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def measure(command: list[str], workdir: Path) -> Pace:
    """Run to the end, watching the epochs."""
    begin = time.monotonic()
    child = start(command, workdir)
    arrivals = []
    while child.poll() is None:
        arrivals += [time.monotonic() - begin] * (rows(workdir) - len(arrivals))
        time.sleep(0.02)
    total = time.monotonic() - begin
    expect_success(child, workdir)
    epochs = rows(workdir)
    if epochs < 2 or not arrivals:
        sys.exit("the training has fewer than two epochs: nothing to interrupt")
    last = arrivals[-1] if len(arrivals) > 1 else total
    return Pace(arrivals[0], (last - arrivals[0]) / max(1, len(arrivals) - 1), total, epochs)


def torment(options: argparse.Namespace, workdir: Path, pace: Pace) -> list[Death]:
    """Interrupt and start again as often as asked for, then let it end."""
    rng = random.Random(options.seed)
    signals = [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.stops
    rng.shuffle(signals)
    deaths = []
    for number in signals:
        moment = choose_moment(rng, pace, rows(workdir), len(signals) - len(deaths))
        begin = time.monotonic()
        child = start(options.command, workdir)
        wait_for(moment, child, workdir, pace, rng)
        lived = time.monotonic() - begin
        if child.poll() is None:
            os.killpg(child.pid, number)
        if child.wait() == 0:
            return deaths
        expect_end_by(number, child, workdir)
        deaths.append(Death(number.name, moment, lived, rows(workdir)))
        print(
            f"  {len(deaths):3d}  {number.name:8s}{moment:9s}{lived:7.2f} s  "
            f"epoch {deaths[-1].epochs}",
            flush=True,
        )
    child = start(options.command, workdir)
    child.wait()
    expect_success(child, workdir)
    return deaths


def expect_end_by(number: signal.Signals, child, workdir: Path) -> None:
    """A killed run is dead, a stopped one says 75, unless it was not yet listening."""
    legal = {-number} if number == signal.SIGKILL else {-number, STOPPED}
    if child.returncode not in legal:
        give_up(child, workdir)


def choose_moment(rng: random.Random, pace: Pace, done: int, kills_left: int) -> str:
    """Half of the kills hit the training; with few epochs left, kills that cost none."""
    if (pace.epochs - done) / kills_left < 1.0:
        return "start-up"
    return rng.choice(("start-up", "training", "training", "saving"))


def wait_for(moment: str, child, workdir: Path, pace: Pace, rng: random.Random) -> None:
    """Return at a random point of the moment chosen, or when the process has ended."""
    done, old = rows(workdir), being_written(workdir)
    if moment == "start-up":
        pause(child, rng.uniform(0.0, pace.start), lambda: rows(workdir) > done)
    elif moment == "training":
        pause(child, math.inf, lambda: rows(workdir) > done)
        pause(child, rng.uniform(0.0, 1.5 * pace.epoch))
    else:
        pause(child, math.inf, lambda: being_written(workdir) - old)
        pause(child, rng.uniform(0.0, 0.03))


def pause(child, seconds: float, until=lambda: False) -> None:
    """Sleep till the time is over, `until()` holds, or the process has ended."""
    end = time.monotonic() + seconds
    while child.poll() is None and not until() and (left := end - time.monotonic()) > 0:
        time.sleep(min(0.002, left))


def being_written(workdir: Path) -> set[tuple[Path, int]]:
    """Checkpoints that are not yet whole, told apart by their inode."""
    found = set()
    for path in workdir.glob("*/*.orbax-checkpoint-tmp"):
        try:
            found.add((path, path.stat().st_ino))
        except FileNotFoundError:
            continue  # renamed in the meantime
    return found


def rows(workdir: Path) -> int:
    """Whole lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def expect_success(child, workdir: Path) -> None:
    if child.returncode != 0:
        give_up(child, workdir)


def give_up(child, workdir: Path) -> None:
    """End this script with the run's last words."""
    log = workdir.parent / f"{workdir.name}.log"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    sys.exit(f"{workdir}: exit code {child.returncode}\n{last}")


# Comparing --------------------------------------------------------------------------------------


def compare(whole: Path, killed: Path) -> list[str]:
    """What differs between the two runs, in words; empty if nothing does."""
    found = [*compare_metrics(whole, killed), *compare_results(whole, killed)]
    for folder in ("checkpoints", "best"):
        first, second = (fingerprint(run / folder) for run in (whole, killed))
        found += [
            f"{folder}: {name} differs"
            for name in {**first, **second}
            if first.get(name) != second.get(name)
        ]
    left = [str(p) for p in killed.rglob("*") if "tmp" in p.name or p.name.startswith("damaged-")]
    return found + [f"left behind: {path}" for path in left]


def compare_metrics(whole: Path, killed: Path) -> list[str]:
    first, second = ((run / "metrics.jsonl").read_bytes().splitlines() for run in (whole, killed))
    if len(first) != len(second):
        return [f"metrics.jsonl: {len(first)} rows and {len(second)} rows"]
    for number, (a, b) in enumerate(zip(first, second, strict=True), 1):
        if a != b:
            a, b = json.loads(a), json.loads(b)
            keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
            return [f"metrics.jsonl: row {number} differs in {', '.join(keys) or 'its bytes'}"]
    return []


def compare_results(whole: Path, killed: Path) -> list[str]:
    first, second = (
        figures(json.loads((run / "result.json").read_text())) for run in (whole, killed)
    )
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return [f"result.json: {key} is {first.get(key)} and {second.get(key)}" for key in keys]


def figures(result, name: str = "") -> dict:
    """Entries of nested JSON by name, without those that say when and where."""
    if isinstance(result, list):
        result = dict(enumerate(result))
    if not isinstance(result, dict):
        return {name: result}
    found = {}
    for key, value in result.items():
        if not any(word in str(key).lower() for word in WHEN_AND_WHERE):
            found |= figures(value, f"{name}/{key}".strip("/"))
    return found


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 per part of the newest checkpoint: parameters, statistics, optimizer, step."""
    tree, _ = read_tree(folder)
    found = {}
    for part, branch in tree.items():
        digest = hashlib.sha256()
        for path, array in jax.tree_util.tree_leaves_with_path(branch):
            digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
            digest.update(array.tobytes())
        found[part] = digest.hexdigest()
    return found


def report(options, pace: Pace, deaths: list[Death], differences: list[str]) -> None:
    """Table on the console, JSON in the folder."""
    digests = {
        run: fingerprint(options.folder / run / "checkpoints")["params"]
        for run in ("whole", "killed")
    }
    counts = dict.fromkeys(("start-up", "training", "saving"), 0)
    for death in deaths:
        counts[death.moment] += 1
    print(
        "\ninterruptions: " + ", ".join(f"{count} in {moment}" for moment, count in counts.items())
    )
    print(f"{'run':10s}{'epochs':>8s}  sha256 of the final parameters")
    for run, digest in digests.items():
        print(f"{run:10s}{rows(options.folder / run):8d}  {digest}")
    print("\n".join(differences) or "metrics.jsonl, result.json, last and best checkpoint: equal")
    write_json_atomic(
        options.folder / "kill_test.json",
        {
            "equal": not differences,
            "differences": differences,
            "kills": options.kills,
            "stops": options.stops,
            "moments": counts,
            "seed": options.seed,
            "command": options.command[1:],
            "parameters_sha256": digests,
            "uninterrupted": pace._asdict(),
            "deaths": [death._asdict() for death in deaths],
        },
    )


if __name__ == "__main__":
    sys.exit(main())
