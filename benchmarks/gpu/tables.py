"""Rows of published tables, fold 0, three seeds stacked as one program, equally many epochs.

Every row is a process (`benchmarks.gpu.row`): all of them compile side by side, then each is timed
alone, then all train for as many epochs as the time allows, the same number for all rows of a
group. Where that is below `_LEAST_EPOCHS`, the rows that cost most are left out. A later group gets
what the earlier ones leave. The files of every run are kept in the cases; `benchmarks.gpu.report`
writes them out as run directories.
"""

import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.row import Row
from configs import tables
from feedseg import datasets
from feedseg.experiments import published, trials
from feedseg.runs import config as configs
from feedseg.runtime.errors import UserError

_SEEDS = (0, 1, 2)
_LEAST_EPOCHS = 24  # fewer say nothing of a method
_RESERVE = 1.25  # of the measured times, for what they do not hold
_END_S = 12.0  # before the limit: runs that are still going on are stopped and kept as they are
_LEAST_S = 120.0  # that a group is begun with
KEPT, METRICS = ("result.json", "config.json", "data.json"), "metrics.jsonl"

_DRY_CHANGES = (
    "data.synthetic_count=12",
    "data.synthetic_size=32",
    "data.crop_size=32",
    "model.filters=(4,)",
    "train.batch_size=2",
    "train.eval_batch_size=4",
    "runtime.devices=1",
    "evaluate.dihedral=False",
)


class Spec(NamedTuple):
    """A row's runs. rows: the tables' rows that they serve."""

    name: str
    rows: tuple[str, ...]
    runs: tuple[trials.Trial, ...]


def measure_all(recorder: Recorder) -> None:
    with tempfile.TemporaryDirectory(prefix="feedseg-gpu-") as folder:
        groups = _dry(Path(folder)) if recorder.dry else _groups(Path(folder))
        form = _form(recorder)
        recorder.facts(runs_in_a_program=form)
        for name, specs in groups.items():
            specs = _with_data(name, specs, recorder)
            if specs and recorder.left() < _LEAST_S and not recorder.dry:
                recorder.leave_out(name, f"{recorder.left():.0f} s are left")
            elif specs:
                _group(recorder, name, specs, form)


def _groups(root: Path) -> dict[str, list[Spec]]:
    """The rows of each group; runs that several rows share are made once."""
    return {
        "fba-t1, fbu-t1": _specs(root, ("fba-t1", "fbu-t1"), "modern"),
        "aep-t4": _specs(root, ("aep-t4",), "paper"),
    }


def _specs(root: Path, names: tuple[str, ...], recipe: str) -> list[Spec]:
    found: dict[str, Spec] = {}
    for name in names:
        table = published.table(name)
        for row in table.rows:
            for scores in row.scores:
                if scores.dataset not in ("sstem", "isbi2012"):
                    continue
                place = (table.arguments, scores.dataset, scores.degrade, 0)
                changes = tables.METHODS[row.key].overrides
                runs = tuple(
                    trials.placed(
                        tables.config_string(row.key, *place, seed, recipe), changes, root / name
                    )
                    for seed in _SEEDS
                )
                label = " ".join(filter(None, (name, row.key, scores.degrade)))
                key = _key(runs[0])
                old = found.get(key, Spec(label, (), runs))
                found[key] = old._replace(rows=(*old.rows, label))
    return list(found.values())


def _key(run: trials.Trial) -> str:
    """What makes a run, whatever it is called."""
    config, _ = configs.parse_flags(run.arguments())
    plain = configs.identity(configs.to_plain(config))
    return json.dumps({k: v for k, v in plain.items() if k not in ("experiment", "run_name")})


def _dry(root: Path) -> dict[str, list[Spec]]:
    def spec(text: str) -> Spec:
        runs = [trials.placed(f"{text},seed={seed}", _DRY_CHANGES, root) for seed in (0, 1)]
        return Spec(text, (text,), tuple(runs))

    modern = "dataset=synthetic,recipe=modern"
    return {
        "toy": [
            spec(f"configs/baseline.py:model=unet,{modern}"),
            spec(f"configs/feedback_unet.py:layout=none,{modern}"),
        ]
    }


def _form(recorder: Recorder) -> str:
    """How several runs are one program: what piece `models` found faster, else copies."""
    try:
        cases = json.loads(recorder.beside("models").read_text("utf-8"))["cases"]
        times = {c["form"]: c["seconds"] for c in cases if c["models"] == 5 and "seconds" in c}
    except (OSError, ValueError, KeyError):
        times = {}
    return min(times, key=times.get) if len(times) == 2 else "copies"


def _with_data(group: str, specs: list[Spec], recorder: Recorder) -> list[Spec]:
    """The rows whose data are here."""
    found = []
    for spec in specs:
        config, _ = configs.parse_flags(spec.runs[0].arguments())
        try:
            datasets.find_root(config.data.name, config.data_dir)
            found.append(spec)
        except UserError as error:
            recorder.leave_out(f"{group}: {spec.name}", str(error).splitlines()[0])
    return found


# A group --------------------------------------------------------------------------------------


def _group(recorder: Recorder, name: str, specs: list[Spec], form: str) -> None:
    rows = {spec: Row(spec.runs, form, recorder.log(spec.name)) for spec in specs}
    try:
        with ThreadPoolExecutor(len(rows)) as pool:
            ready = {
                spec: pool.submit(row.answer, max(1.0, (recorder.left() - _END_S) / 2))
                for spec, row in rows.items()
            }
            compiled = {spec: future.result() for spec, future in ready.items()}
        costs = {}
        for spec, answer in compiled.items():
            if "ready" in answer:
                rows[spec].ask("time")
                answer = rows[spec].answer(max(1.0, recorder.left() - _END_S))
            if "epoch_s" in answer:
                costs[spec] = answer
            else:
                recorder.add(f"{name}: {spec.name}", rows=spec.rows, **answer)
        chosen, epochs = _plan(costs, recorder.left() - _END_S, recorder.dry)
        recorder.add(
            f"{name}: epochs",
            epochs=epochs,
            measured={spec.name: found for spec, found in costs.items()},
        )
        for spec in costs:
            if spec not in chosen:
                recorder.leave_out(
                    f"{name}: {spec.name}",
                    f"an epoch takes {costs[spec]['epoch_s']:.1f} s: all rows would get "
                    f"below {_LEAST_EPOCHS} epochs",
                )
        lock = threading.Lock()
        with ThreadPoolExecutor(max(1, len(chosen))) as pool:
            for spec in chosen:
                limit = recorder.left() - _END_S
                pool.submit(_train, recorder, lock, name, spec, rows[spec], epochs, limit)
    finally:
        for row in rows.values():
            row.close()


def _plan(costs: dict[Spec, dict], seconds: float, dry: bool) -> tuple[list[Spec], int]:
    """The rows that are trained, and for how many epochs.

    The device's work adds up, what the processors do (saving, scoring) runs side by side.
    """
    rows = sorted(costs, key=lambda spec: costs[spec]["epoch_s"])
    if dry or not rows:
        return rows, 1
    while True:
        found = [costs[spec] for spec in rows]
        rest = seconds / _RESERVE - max(each["begin_s"] + each["end_s"] for each in found)
        epoch = max(sum(e["device_s"] for e in found), *(e["epoch_s"] for e in found), 1e-9)
        epochs = int(rest / epoch)
        if epochs >= _LEAST_EPOCHS or len(rows) == 1:
            most = min(each["epochs"] for each in found)  # of the recipe
            return rows, max(1, min(epochs, most))
        rows = rows[:-1]


def _train(recorder, lock, group: str, spec: Spec, row: Row, epochs: int, limit: float) -> None:
    """Train a row and keep what its runs wrote, finished or not."""
    row.ask(str(epochs))
    answer = row.answer(max(1.0, limit))
    if "outcomes" not in answer:
        row.stop()
    with lock:
        for run, seed in zip(spec.runs, _SEEDS, strict=False):
            case = f"{group}: {spec.name} seed {seed}"
            recorder.add(case, rows=spec.rows, epochs=epochs, **answer, run=_files(run.workdir))


def _files(workdir: Path) -> dict:
    """A run directory's small files, by name; `metrics.jsonl` as a list."""
    found: dict = {"place": "/".join(workdir.parts[-3:])}
    for name in KEPT:
        if (workdir / name).exists():
            found[name] = json.loads((workdir / name).read_text("utf-8"))
    metrics = workdir / METRICS
    if metrics.exists():
        lines = metrics.read_text("utf-8").splitlines()
        found[METRICS] = [json.loads(line) for line in lines if line.endswith("}")]
    return found
