"""Runs faults in turn, each with random variations until its share of the time is over."""

import collections
import importlib.metadata
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign import materials, process, worker
from tests.campaign.outcome import KINDS, Outcome, wrong

Attempt = Callable[[random.Random, Path], Outcome]
_PACKAGES = ("feedseg", "jax", "numpy", "tifffile", "orbax-checkpoint", "zarr", "onnxruntime")
_UNPREPARED = "undisturbed: "
_COLUMNS = ("survived", "refused with one line", "lost or wrong", "skipped")


@dataclass
class Tally:
    """The tries of a fault."""

    name: str
    counts: collections.Counter = field(default_factory=collections.Counter)
    failures: list[dict] = field(default_factory=list)
    reason: str = ""  # why tries were skipped
    seconds: float = 0.0


def run(
    faults: Mapping[str, Attempt], seconds: float, seed: int, number: int | None = None
) -> list[Tally]:
    """Every fault at least once, or one try by its number; failures are printed as they come.

    Ctrl-C ends it with what was found.
    """
    tallies, ends = [], time.monotonic() + seconds
    try:
        for place, (name, attempt) in enumerate(faults.items()):
            tally, started = Tally(name), time.monotonic()
            tallies.append(tally)
            share = max(0.0, ends - started) / (len(faults) - place)
            tries = iter(range(10**9) if number is None else [number])
            for k in tries:
                outcome = one(name, attempt, seed, k)
                _count(tally, outcome, seed, k)
                over = time.monotonic() - started >= share or tally.reason
                if over or outcome.text.startswith(_UNPREPARED):
                    break
            tally.seconds = round(time.monotonic() - started, 1)
            print(_row(tally), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("stopped: what was found until now follows", file=sys.stderr)
    finally:
        worker.stop()
        process.end_orphans()
        materials.remove()
    return tallies


def one(name: str, attempt: Attempt, seed: int, number: int) -> Outcome:
    """One try; what a fault itself raises counts as wrong."""
    rng = random.Random(f"{seed} {name} {number}")
    folder = Path(tempfile.mkdtemp(dir=materials.folder(), prefix="try-"))
    try:
        return attempt(rng, folder)
    except materials.Unprepared as error:
        return wrong(f"{_UNPREPARED}{error}")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return wrong(f"the check failed: {text}")
    finally:
        worker.stop_if_tired()
        process.end_orphans()
        shutil.rmtree(folder, ignore_errors=True)


def _count(tally: Tally, outcome: Outcome, seed: int, number: int) -> None:
    tally.counts[outcome.kind] += 1
    if outcome.kind == "skipped":
        tally.reason = outcome.text
    if outcome.kind == "wrong":
        again = f"python -m tests.campaign --only {tally.name} --seed {seed} --try {number}"
        tally.failures.append(dict(number=number, text=outcome.text, again=again))
        print(f"{tally.name}: {_printable(outcome.text)}\n  {again}", file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    return text.encode("unicode_escape").decode()


def _row(tally: Tally) -> str:
    numbers = [sum(tally.counts.values()), *(tally.counts[kind] for kind in KINDS)]
    name = tally.name + (f" ({tally.reason})" if tally.reason else "")
    return f"| {name} | {' | '.join(map(str, numbers))} | {tally.seconds:.0f} |"


def table(tallies: list[Tally]) -> str:
    """Markdown."""
    names = ("fault", "tries", *_COLUMNS, "seconds")
    head = [f"| {' | '.join(names)} |", "| --- " + "| ---: " * (len(names) - 1) + "|"]
    return "\n".join([*head, *map(_row, tallies)])


def write(path: Path, tallies: list[Tally], seed: int, minutes: float) -> None:
    """JSON at `path`, and Markdown beside it."""
    facts = dict(seed=seed, minutes=minutes, cores=os.cpu_count(), commit=_commit())
    facts["versions"] = {"python": platform.python_version(), **_versions()}
    rows = [
        dict(fault=t.name, tries=sum(t.counts.values()), **{kind: t.counts[kind] for kind in KINDS})
        | dict(reason=t.reason, seconds=t.seconds, failures=t.failures)
        for t in tallies
    ]
    path.write_text(json.dumps({**facts, "faults": rows}, indent=1) + "\n")
    lines = [f"- `{f['again']}`: {_printable(f['text'])}" for t in tallies for f in t.failures]
    said = f"Seed {seed}, {minutes:g} minutes, {facts['cores']} cores, commit {facts['commit']}.\n"
    path.with_suffix(".md").write_text("\n".join([said, table(tallies), "", *lines]) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    ask = ["git", "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(ask, cwd=materials.ROOT, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"
