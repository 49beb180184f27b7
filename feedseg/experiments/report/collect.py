"""The finished runs below some folders, grouped by method."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from feedseg.experiments.report.names import decisive, method_key, short_names
from feedseg.runs.directory import RunDir, find_runs, read_json
from feedseg.runtime.errors import UserError

# Keys that may differ between methods scored on the same images: how a network sees them.
_PREPARATION = ("filter", "normalization", "percentiles", "channels", "mask_values")
_PREPARATION += ("border_class", "border_weight", "border_sigma_px")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and one of its scored outputs.

    condition: equal for runs scored on the same test images and truth.
    """

    folder: Path
    config: dict
    result: dict
    output: str = "final"
    condition: str = ""

    @property
    def fold(self) -> int:
        return self.config["split"]["fold"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def repeat(self) -> tuple[int, int, str]:
        """Equal for runs of different methods that are compared in pairs."""
        return self.fold, self.seed, self.condition

    def score(self, key: str) -> float | None:
        """A score on the test images in percent; None if there is none."""
        value = self.result["metrics"][self.output].get(key)
        return None if value is None else 100 * value


class Method(NamedTuple):
    """Runs of one configuration, over folds and seeds."""

    name: str
    runs: tuple[FinishedRun, ...]

    def scores(self, key: str) -> list[float | None]:
        return [run.score(key) for run in self.runs]


class Collection(NamedTuple):
    """The content of a report. warnings: one line per run left out or not comparable."""

    methods: tuple[Method, ...]
    warnings: tuple[str, ...]

    @property
    def runs(self) -> list[FinishedRun]:
        return [run for method in self.methods for run in method.runs]

    @property
    def class_names(self) -> list[str]:
        return list(dict.fromkeys(n for run in self.runs for n in run.result["class_names"]))

    @property
    def comparable(self) -> bool:
        """Whether the runs of each fold are scored on the same test images."""
        return not _mixed(self.methods)


def collect(paths: Sequence[Path], by: str = "method", every_output: bool = False) -> Collection:
    """The finished runs below the paths as methods, in the order of the paths.

    by: `method`, or `run` for each run on its own. every_output: the other outputs that were
    scored (`first`, `rounds/0`, `dihedral`, ...) count as methods too.
    Raises UserError for a path that is not there, or if no run below has a result.
    """
    results = [_read(folder) for folder in find_runs(paths)]
    runs = [result for result in results if isinstance(result, FinishedRun)]
    warnings = [result for result in results if isinstance(result, str)]
    if not runs:
        reasons = f" ({'; '.join(warnings)})" if warnings else ""
        raise UserError(
            f"no finished run in {', '.join(map(str, paths))}{reasons}; name run directories, or "
            "folders of them, that hold result.json"
        )
    methods, repeated = _grouped(_with_conditions(runs), by)
    warnings += repeated + _cautions(methods, by)
    changed = (run.folder / "metrics.jsonl" for run in runs if not has_own_log(run))
    warnings += [f"left out of the curves, changed since its run ended: {path}" for path in changed]
    if every_output:
        methods = [output for method in methods for output in _outputs(method)]
    return Collection(tuple(methods), tuple(warnings))


def renamed(collection: Collection, names: Mapping[str, str]) -> Collection:
    """The methods under other names. Raises UserError for an unknown or a repeated name."""
    old = [method.name for method in collection.methods]
    if unknown := [name for name in names if name not in old]:
        raise UserError(f"--rename {unknown[0]!r}: no such method; there are: {', '.join(old)}")
    new = [names.get(name, name) for name in old]
    if len(set(new)) < len(new):
        raise UserError(f"--rename: two methods of one name: {', '.join(new)}")
    methods = (m._replace(name=name) for m, name in zip(collection.methods, new, strict=True))
    return collection._replace(methods=tuple(methods))


def _read(folder: Path) -> FinishedRun | str:
    """A finished run, or why it is left out."""
    directory = RunDir(folder)
    if not directory.result.exists():
        return f"left out, not finished: {folder}"
    try:
        config, result = read_json(directory.config), directory.finished()
    except UserError as error:
        return f"left out: {error}"
    try:
        usable = "miou" in result["metrics"]["final"] and len(result["class_names"]) > 0
        usable = usable and isinstance(config["split"]["fold"] + config["seed"], int)
    except (KeyError, TypeError):
        usable = False
    if not usable:
        return f"left out, its result holds no scores: {directory.result}"
    if not result.get("complete"):
        return f"left out, not finished: {folder}"
    return FinishedRun(folder, config, result)


def has_own_log(run: FinishedRun) -> bool:
    """Whether metrics.jsonl is there as it was when the run ended, as far as that was noted."""
    written = run.result.get("log_hash")
    return not written or written == RunDir(run.folder).log_hash()


def _with_conditions(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs with their conditions: data, truth and split.

    The stored data hash also covers the preparation (filters, gray range), a choice of the method;
    it only counts where equal data have several hashes.
    """
    hashes = defaultdict(set)
    for run in runs:
        hashes[_test_part(run, ())].add(run.result.get("data_hash"))
    changed = any(len(values) > 1 for values in hashes.values())
    return [
        replace(
            run,
            condition=_test_part(run, _PREPARATION)
            + (run.result.get("data_hash") or "" if changed else ""),
        )
        for run in runs
    ]


def _test_part(run: FinishedRun, without: Sequence[str]) -> str:
    data = {key: value for key, value in run.config["data"].items() if key not in without}
    split = run.config["split"]
    return json.dumps([run.fold, decisive({"data": data, "split": split})], sort_keys=True)


def _grouped(runs: Sequence[FinishedRun], by: str) -> tuple[list[Method], list[str]]:
    """Methods in the order of their first run, and a warning for each repeated run."""
    groups: dict[str, list[FinishedRun]] = defaultdict(list)
    repeated = []
    for run in runs:
        key = str(run.folder) if by == "run" else method_key(run.config)
        same = [r for r in groups[key] if r.repeat == run.repeat]
        if same:
            repeated.append(f"left out, the same run as {same[0].folder}: {run.folder}")
        else:
            groups[key].append(run)
    first = [group[0] for group in groups.values()]
    names = short_names([r.config for r in first], [str(r.folder) for r in first], by == "run")
    return [
        Method(name, tuple(sorted(group, key=lambda run: (run.fold, run.seed))))
        for name, group in zip(names, groups.values(), strict=True)
    ], repeated


def _outputs(method: Method) -> list[Method]:
    """The method, and one more for each other output that all of its runs have scored."""
    scored = [run.result["metrics"] for run in method.runs]
    others = [name for name in scored[0] if name != "final" and all(name in s for s in scored)]
    more = [
        Method(f"{method.name}: {name}", tuple(replace(run, output=name) for run in method.runs))
        for name in others
    ]
    return [method, *more]


def _cautions(methods: Sequence[Method], by: str) -> list[str]:
    """Reasons why the numbers of the methods are not comparable."""
    cautions = []
    if mixed := _mixed(methods):
        parts = " | ".join(", ".join(names) for names in mixed)
        cautions.append(f"different test images or truth, not comparable as such: {parts}")
    repeats = {method.name: sorted((r.fold, r.seed) for r in method.runs) for method in methods}
    if by == "method" and len({str(pairs) for pairs in repeats.values()}) > 1:
        counts = ", ".join(f"{name} {len(pairs)}" for name, pairs in repeats.items())
        cautions.append(f"the methods have different folds and seeds; runs: {counts}")
    versions = sorted({str(r.result.get("version")) for m in methods for r in m.runs})
    if len(versions) > 1:
        cautions.append(f"made by different versions of the code: {', '.join(versions)}")
    return cautions


def _mixed(methods: Sequence[Method]) -> list[list[str]]:
    """Names of methods by what they are scored on, if that differs within a fold; else empty."""
    folds = defaultdict(lambda: defaultdict(dict))
    for method in methods:
        for run in method.runs:
            folds[run.fold][run.condition][method.name] = None
    mixed = [conditions for conditions in folds.values() if len(conditions) > 1]
    return [list(names) for names in mixed[0].values()] if mixed else []
