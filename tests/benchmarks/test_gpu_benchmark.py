"""One command measures everything on a GPU: at toy size here, piece by piece, and its tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import report, tables
from benchmarks.gpu.recorder import Recorder
from tests.support import tiny


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=tiny.ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.long
def test_every_piece_at_toy_size_leaves_its_file_and_a_page(tmp_path):
    done = run("--dry", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(f"{name}.json" for name in command.NAMES) and len(files) <= 6
    for name in command.NAMES:
        piece = json.loads((tmp_path / f"{name}.json").read_text())
        assert piece["complete"] and piece["cases"] and "error" not in piece, piece
        assert not [case for case in piece["cases"] if "error" in case], piece["cases"]
        assert piece["facts"]["jax"] and piece["dry"]
    page = report.report(tmp_path)
    assert all(f"## {name}" in page for name in command.NAMES) and "toy size" in page
    made = sorted((tmp_path / "runs").rglob("result.json"))
    assert len(made) == 4
    seeds = [json.loads((path.parent / "config.json").read_text())["seed"] for path in made]
    assert sorted(seeds) == [0, 0, 1, 1]
    assert all((path.parent / "metrics.jsonl").read_text().count("\n") == 1 for path in made)


def test_without_a_gpu_it_says_so():
    done = run("--out", "nowhere", "--only", "facts")
    assert done.returncode == 1 and "sees no GPU" in done.stderr
    assert not (tiny.ROOT / "nowhere").exists()


def test_error_of_a_case_is_its_result_and_the_others_go_on(tmp_path, capsys):
    recorder = Recorder(tmp_path / "piece.json", "piece", 60, dry=True)

    def fail():
        raise RuntimeError("out of memory")

    recorder.measure("first", fail)
    recorder.measure("second", lambda: {"seconds": 2.0})
    recorder.measure("third", lambda: {}, least_s=100)
    kept = json.loads((tmp_path / "piece.json").read_text())
    assert kept["cases"][0] == {"case": "first", "error": "RuntimeError: out of memory"}
    assert kept["cases"][1]["seconds"] == 2 and not kept["complete"]
    assert kept["left_out"][0]["case"] == "third" and "60 s" in kept["left_out"][0]["why"]
    assert "left out: third" in capsys.readouterr().out


def test_a_piece_that_is_ended_keeps_its_cases_and_says_where_it_was(tmp_path):
    file = tmp_path / "steps.json"
    recorder = Recorder(file, "steps", 60, dry=True)
    recorder.add("done", seconds=1.0)

    def look() -> dict:
        assert command._running(file) == "long one"
        command._keep_error(file, "steps", "ended after 60 s")
        return {}

    recorder.measure("long one", look)
    command._keep_error(file, "steps", "ended after 60 s")
    kept = json.loads(file.read_text())
    assert kept["error"] == "ended after 60 s" and kept["cases"][0]["case"] == "done"


def cost(epoch_s: float) -> dict:
    return {"device_s": epoch_s, "epoch_s": epoch_s, "begin_s": 10.0, "end_s": 10.0, "epochs": 60}


def test_epochs_are_equal_and_the_dearest_rows_are_left_out():
    a, b, c = (tables.Spec(name, (name,), ()) for name in "abc")
    costs = {a: cost(1.0), b: cost(3.0), c: cost(0.5)}
    chosen, epochs = tables._plan(costs, 1.25 * (20 + 45 * 4.5), dry=False)
    assert set(chosen) == {a, b, c} and epochs == 45
    chosen, epochs = tables._plan(costs, 1.25 * (20 + 30 * 1.5), dry=False)
    assert set(chosen) == {a, c} and epochs == 30
    assert tables._plan(costs, 1.25 * (20 + 1000 * 4.5), dry=False)[1] == 60  # of the recipe


def test_rows_of_two_tables_that_are_the_same_runs_are_made_once():
    groups = tables._groups(Path("runs"))
    first, second = groups.values()
    rows = [row for spec in first for row in spec.rows]
    assert len(rows) == 10 and len(first) == 7
    assert len({run.workdir for spec in first for run in spec.runs}) == 21
    assert [row for spec in second for row in spec.rows if "noise" in row] == [
        "aep-t4 unet_aep_baseline noise",
        "aep-t4 aep_awel noise",
    ]
