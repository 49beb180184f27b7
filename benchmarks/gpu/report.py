"""The tables of a measured GPU, and its runs as run directories.

    python -m benchmarks.gpu.report results/gpu

Reads the files that `benchmarks.gpu` wrote and leaves README.md beside them and, for `feedseg
report`, every run below `runs/`.
"""

import argparse
import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.gpu.__main__ import NAMES
from benchmarks.gpu.tables import KEPT, METRICS
from feedseg.runtime.files import to_json, write_json_atomic, write_text_atomic
from feedseg.runtime.tables import markdown, mean_and_std


def report(folder: Path) -> str:
    """The pages' text; also writes it and the runs. Raises SystemExit without a file of a piece."""
    pieces = {}
    for name in NAMES:
        if (folder / f"{name}.json").exists():
            pieces[name] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    if not pieces:
        raise SystemExit(f"{folder}: no file of benchmarks.gpu is here ({', '.join(NAMES)}.json)")
    lines = ["# Measured on a GPU", "", *_head(pieces)]
    for name, piece in pieces.items():
        lines += [f"## {name}", "", *_SECTIONS[name](piece["cases"]), *_rest(piece)]
    text = "\n".join(lines)
    write_text_atomic(folder / "README.md", text + "\n")
    for case in pieces.get("tables", {"cases": []})["cases"]:
        if "run" in case:
            _unpack(case["run"], folder / "runs")
    return text


def _head(pieces: dict) -> list[str]:
    """What was measured with what, and the commands."""
    facts = next(iter(pieces.values()))["facts"]
    dry = any(piece["dry"] for piece in pieces.values())
    names = shlex.join(pieces)
    return [
        *["At toy size: these numbers say nothing of a device.", ""] * dry,
        f"{facts.get('device', '?')}, Python {facts.get('python')}, JAX {facts.get('jax')}, "
        f"PyTorch {facts.get('torch')}. Every number is in the JSON file of its part.",
        "",
        "```bash",
        f"python -m benchmarks.gpu --out DIR --only {names}{' --dry' * dry}",
        "python -m benchmarks.gpu.report DIR",
        "```",
        "",
    ]


def _rest(piece: dict) -> list[str]:
    """Errors and what was left out."""
    lines = [f"- {case['case']}: {case['error']}" for case in piece["cases"] if "error" in case]
    lines += [f"- not measured: {each['case']}: {each['why']}" for each in piece["left_out"]]
    if "error" in piece:
        lines.append(f"- not finished: {piece['error']}")
    return [*lines, ""] if lines else []


def _table(head: Sequence[str], rows: Iterable[Sequence]) -> list[str]:
    rows = [[_text(cell) for cell in row] for row in rows]
    if not rows:
        return []
    return [*markdown(head, rows), ""]


def _text(value) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _good(cases: Sequence[dict]) -> list[dict]:
    return [case for case in cases if "error" not in case]


def _facts(cases: Sequence[dict]) -> list[str]:
    rows = [
        (c["case"], c["peak_flop_per_s"] / 1e12, c["peak_bytes_per_s"] / 1e9) for c in _good(cases)
    ]
    return _table(("products in", "TFLOP/s", "copy, GB/s"), rows)


def _equal(cases: Sequence[dict]) -> list[str]:
    rows = [
        (c["case"], f"{c['error_of_largest']:.1e}", c["equal"])
        for c in _good(cases)
        if "equal" in c
    ]
    lines = _table(("compared", "relative error", "at most 1e-4"), rows)
    for case in _good(cases):
        if "last" in case:
            lines += [f"Tests: {' '.join(case['last'])}", ""]
    return lines


def _steps(cases: Sequence[dict]) -> list[str]:
    rows = [
        (
            case["case"],
            1000 * case["seconds"]["feedseg"],
            *(case["ratio"].get(peer) for peer in ("eager", "compiled")),
            case["images_per_s"]["feedseg"],
            case["peak_mib"]["feedseg"],
            next((v for k, v in case["peak_mib"].items() if k != "feedseg"), None),
            case.get("gflop_per_s", {}).get("feedseg"),
            100 * share if (share := case.get("share_of_peak_flops", {}).get("feedseg")) else None,
        )
        for case in _good(cases)
    ]
    head = ("case", "ms", "PyTorch eager / feedseg", "torch.compile / feedseg", "images/s")
    head += ("MiB", "PyTorch's MiB", "GFLOP/s", "% of peak")
    return _table(head, rows)


def _attention(cases: Sequence[dict]) -> list[str]:
    rows = [
        (
            case["case"],
            1000 * case["seconds"]["feedseg"],
            case["ratio"],
            case["torch_kernel"],
            case["peak_mib"]["feedseg"],
            case["peak_mib"].get("torch"),
        )
        for case in _good(cases)
    ]
    head = ("case", "ms", "PyTorch / feedseg", "PyTorch's kernel", "MiB", "PyTorch's MiB")
    return _table(head, rows)


def _models(cases: Sequence[dict]) -> list[str]:
    rows = [
        (
            case["network"],
            case["models"],
            case["form"],
            1000 * case["seconds"],
            case["images_per_s"],
            case["models_per_hour_of_1000_steps"],
            case["compile_s"],
        )
        for case in _good(cases)
    ]
    head = ("network", "models", "form", "ms a step", "images/s", "models/h of 1000 steps")
    return _table((*head, "compile, s"), rows)


def _tables(cases: Sequence[dict]) -> list[str]:
    """IoU of the rows in percent, mean and standard deviation over the seeds that are finished."""
    rows: dict[str, list[dict]] = {}
    for case in cases:
        if "result.json" in case.get("run", {}):
            rows.setdefault(case["case"].rsplit(" seed ", 1)[0], []).append(case)
    blocks: dict[tuple, list] = {}
    for name, runs in rows.items():
        results = [each["run"]["result.json"] for each in runs]
        classes = results[0]["class_names"]
        scores = [result["metrics"]["final"] for result in results]
        values = [_percent(scores, key) for key in ("miou", *(f"iou/{c}" for c in classes))]
        head = ("row", "runs", "epochs", "mean", *classes)
        blocks.setdefault(head, []).append((name, len(runs), runs[0]["epochs"], *values))
    return [line for head, found in blocks.items() for line in _table(head, found)]


def _percent(scores: Sequence[dict], key: str) -> str:
    return mean_and_std(100 * each[key] for each in scores if each.get(key) is not None)


_SECTIONS: dict[str, Callable[[Sequence[dict]], list[str]]] = {
    "facts": _facts,
    "equal": _equal,
    "steps": _steps,
    "attention": _attention,
    "models": _models,
    "tables": _tables,
}


def _unpack(run: dict, folder: Path) -> None:
    """Write the files of a run to its directory."""
    place = folder / run["place"]
    place.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if name in run:
            write_json_atomic(place / name, run[name])
    lines = "".join(f"{to_json(row)}\n" for row in run.get(METRICS, []))
    write_text_atomic(place / METRICS, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(report(parser.parse_args().folder))


if __name__ == "__main__":
    main()
