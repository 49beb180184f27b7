"""Runs whose files were damaged, deleted or exchanged: what is whole is used, the rest is named."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feedseg import main
from feedseg.experiments.report import report
from feedseg.inference.loading import export
from feedseg.inference.trained import load_run
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runs.directory import RunDir, read_json
from feedseg.runtime.errors import UserError
from feedseg.training import result
from tests.support import run_files, tiny

SMALL = ("config.json", "data.json", "result.json")


def train(workdir: Path, *more: str) -> int:
    """Exit code of a run in this process."""
    flags = ["--config", str(tiny.ROOT / "tests/support/tiny.py"), f"--workdir={workdir}", *more]
    return main.guarded(main.train, flags)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("damaged") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "draw", lambda *_: None)
        assert train(workdir) == 0
    return workdir


@pytest.fixture
def copied(whole, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(result, "draw", lambda *_: None)
    return Path(shutil.copytree(whole, tmp_path / "run"))


def reopen(run: Path, steps: int = tiny.STEPS) -> None:
    """Take back the result, and the steps after `steps`."""
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob("[0-9]*"):
        if int(path.name) > steps:
            shutil.rmtree(path)


def damage(folder: Path) -> None:
    """One byte of the largest file of each step is another."""
    for step in folder.glob("[0-9]*"):
        path = max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


# The best checkpoint ----------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [damage, shutil.rmtree])
@pytest.mark.parametrize("steps", [8, 12])
def test_the_newest_state_takes_the_place_of_a_lost_best_one(copied, capsys, harm, steps):
    """While training goes on, and after its last step."""
    harm(copied / "best")
    reopen(copied, steps)
    assert train(copied) == 0
    shown = capsys.readouterr().out
    assert "is gone or damaged; the newest state, of epoch" in shown
    assert read_json(copied / "result.json")["best"]["step"] >= steps
    load_run(copied)
    assert train(copied) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_best_checkpoint_lost_during_training_is_replaced(copied, monkeypatch):
    reopen(copied, 8)
    restore_latest = result.rescue_best

    def lose(*arguments):
        shutil.rmtree(copied / "best")
        return restore_latest(*arguments)

    monkeypatch.setattr(result, "rescue_best", lose)
    assert train(copied) == 0
    assert read_json(copied / "result.json")["best"]["step"] == tiny.STEPS


@pytest.mark.parametrize("harm", [damage, shutil.rmtree])
def test_a_finished_run_offers_its_newest_state(copied, harm):
    harm(copied / "best")
    with pytest.raises(UserError, match=r"checkpoint.* in .*best.*--checkpoint latest"):
        load_run(copied)
    load_run(copied, "latest")


@pytest.mark.parametrize("folder", ["best", "checkpoints"])
def test_checkpoints_of_another_run_are_refused(copied, tmp_path, capsys, folder):
    assert train(tmp_path / "other", "--config.seed=1", "--config.train.epochs=1") == 0
    shutil.rmtree(copied / folder)
    shutil.copytree(tmp_path / "other" / folder, copied / folder)
    with pytest.raises(UserError, match=f"{folder}.*: is of another configuration than"):
        load_run(copied, {"best": "best", "checkpoints": "latest"}[folder])
    reopen(copied)
    assert train(copied) == 2
    assert f"{folder}/4: is of another configuration" in capsys.readouterr().err


# Small files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("content", ["{}", "[1]", "3", "null", "{", '{"metrics": 3}', "\udcff"])
def test_what_is_no_file_of_a_run_is_named_everywhere(copied, tmp_path, capsys, name, content):
    (copied / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=name):
        export(copied, tmp_path / "m.feedseg.zip", {})
    if name != "result.json":
        with pytest.raises(UserError, match=name):
            load_run(copied)
    if name != "data.json":
        with pytest.raises(UserError, match=name):
            report([copied], tmp_path / "report", images=0)
    assert train(copied) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", SMALL)
def test_a_changed_value_is_noticed(copied, name):
    text = (copied / name).read_text()
    changed = text.replace("nucleus", "nucleuz").replace('"seed": 0', '"seed": 3')
    assert changed != text
    (copied / name).write_text(changed)
    with pytest.raises(UserError, match=f"{name}: was changed, its digest is another"):
        read_json(copied / name)


@pytest.mark.parametrize("name", ["data.json", "result.json"])
def test_files_of_another_run_are_refused(copied, tmp_path, name):
    more = ("--config.train.epochs=1", "--config.data.synthetic_count=9")
    assert train(tmp_path / "other", *more) == 0
    shutil.copy(tmp_path / "other" / name, copied / name)
    with pytest.raises(UserError, match=r"is of another (configuration|data) than"):
        RunDir(copied).finished()
    with pytest.raises(UserError, match=r"is of another (configuration|data) than"):
        export(copied, tmp_path / "m.feedseg.zip", {})


def test_files_without_a_seal_are_read(copied):
    """As earlier versions wrote them, without the hashes in checkpoints."""
    for name in SMALL:
        (copied / name).write_text(json.dumps(read_json(copied / name)))
    load_run(copied)
    assert train(copied) == 0


@pytest.mark.parametrize("lines", [[], [0], [0, 1, 1], "changed"])
def test_missing_and_changed_epochs_are_said(copied, tmp_path, capsys, lines):
    path = copied / "metrics.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    kept = [rows[0].replace("0.", "1.", 1), *rows[1:]] if lines == "changed" else None
    path.write_text("".join(kept or [rows[n] for n in lines]))
    report([copied], tmp_path / "report", images=0)
    assert f"left out of the curves, changed since its run ended: {path}" in capsys.readouterr().out
    reopen(copied)
    assert train(copied) == 0
    count = 3 if kept else len(lines)
    assert f"is not as it was written ({count} of 3 epochs)" in capsys.readouterr().out


def test_damaged_rows_do_not_stop_a_report(copied, tmp_path):
    result = {**read_json(copied / "result.json"), "log_hash": ""}
    run_files.edit(copied / "result.json", **result)
    with (copied / "metrics.jsonl").open("a") as stream:
        stream.write('[1]\n{"epoch": [3]}\n{"epoch": 4, "loss": "x"}\nnull\n{"epo')
    assert [row["epoch"] for row in RunDir(copied).rows()] == [1, 2, 3]
    assert report([copied], tmp_path / "report", images=0) == 0


@pytest.mark.parametrize("how", ["renamed", "deleted"])
def test_a_folder_that_goes_while_its_run_goes_on_is_told_in_one_line(tmp_path, how):
    folder, file = tmp_path / "run", tiny.ROOT / "tests/support/tiny.py"
    command = [sys.executable, "-m", "feedseg.main", f"--config={file}", f"--workdir={folder}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [*command, "--config.train.epochs=4000"], cwd=tiny.ROOT, **pipes
    ) as child:
        end = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < end:
            time.sleep(0.05)
        folder.rename(tmp_path / "elsewhere")
        if how == "deleted":
            shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        said = child.communicate(timeout=60)[1]
    assert child.returncode == 73
    assert "Traceback" not in said and "event loop" not in said.lower()
    last = said.splitlines()[-1]  # another where it goes while a checkpoint is written
    assert last.startswith("feedseg: ") and str(folder) in last


def test_whatever_fails_when_the_folder_is_gone_is_told_as_that(tmp_path, monkeypatch, capsys):
    def save(checkpoints, *_, **__):
        shutil.rmtree(tmp_path / "run")
        checkpoints.folder.rename(tmp_path / "elsewhere")

    monkeypatch.setattr(Checkpoints, "save", save)
    assert train(tmp_path / "run", "--config.train.epochs=1") == 73
    said = capsys.readouterr().err
    assert "deleted or renamed" in said and "Traceback" not in said


def test_a_best_checkpoint_that_goes_at_the_end_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(result, "rescue_best", lambda _, __, meta, best: shutil.rmtree(best.folder))
    assert train(tmp_path / "run", "--config.train.epochs=1") == 73
    assert "deleted or renamed" in capsys.readouterr().err


def test_a_folder_that_goes_while_its_figures_are_drawn_is_told(tmp_path, monkeypatch, capsys):
    """Its result is gone as well: it does not end as if all were there."""
    monkeypatch.setattr(result, "draw", lambda *_: shutil.rmtree(tmp_path / "run"))
    assert train(tmp_path / "run", "--config.train.epochs=1") == 73
    assert "deleted or renamed" in capsys.readouterr().err
