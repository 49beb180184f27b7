"""The `feedseg` command: verbs, exit codes, messages."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg import cli
from feedseg.main import guarded
from tests.support import tiny


def run(*argv: str) -> int:
    return guarded(cli.run, list(argv))


def write_labels(folder, name, labels):
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / name, labels)


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(
        verb in text for verb in ("train", "predict", "evaluate", "check", "fetch", "doctor")
    )


def test_unknown_verb_is_refused():
    with pytest.raises(SystemExit) as end:
        cli.run(["predikt"])
    assert end.value.code == 2


def test_evaluate_scores_folders_by_name(tmp_path, capsys):
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 1
    half = truth.copy()
    half[:4] = 1 - half[:4]  # every class: 16 right, 16 missed, 16 too many
    write_labels(tmp_path / "truth", "a.tif", truth)
    write_labels(tmp_path / "pred", "a_labels.tif", half)
    code = run(
        "evaluate",
        *("--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth")),
        *("--classes", "left, right"),
    )
    assert code == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("left"))
    assert row.split() == ["left", "33.3", "50.0"]


def test_evaluate_names_an_unpaired_file(tmp_path, capsys):
    write_labels(tmp_path / "truth", "a.tif", np.eye(4, dtype=np.uint8))
    write_labels(tmp_path / "pred", "b.tif", np.eye(4, dtype=np.uint8))
    assert (
        run("evaluate", "--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth")) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("feedseg: ") and "a.tif" in error


def test_check_proposes_a_mapping_for_masks(tmp_path, capsys):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", np.eye(32, dtype=np.uint8) * 255)
    assert run("check", str(tmp_path), "--output", str(tmp_path / "report")) == 2
    assert "0:0,255:1" in capsys.readouterr().err
    assert (tmp_path / "report" / "fingerprint.json").is_file()
    mapped = ("--label-map", "0:0,255:1", "--classes", "rest,line")
    assert run("check", str(tmp_path), "--output", str(tmp_path / "report"), *mapped) == 0


def test_predict_without_a_run_says_what_is_missing(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    paths = ("--input", str(tmp_path / "a.tif"), "--output", str(tmp_path / "out"))
    assert run("predict", "--model", str(tmp_path / "none"), *paths) == 2
    assert "none/config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_fetch_of_a_closed_data_set_tells_how_to_get_it(tmp_path, capsys):
    assert run("fetch", "mouse_liver", "--data-dir", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "cannot be fetched" in error and "ask the corresponding authors" in error
    assert not any(tmp_path.iterdir())


def test_train_is_the_training_command(capsys):
    assert run("train", "--config", "configs/nothing.py") == 2
    assert "configs/nothing.py" in capsys.readouterr().err


WRITING = {
    "predict": ["predict", "--model", "nuclei", "--input", "a.tif", "--output", "{}"],
    "export": ["export", "nuclei", "--to", "{}/x.feedseg.zip"],
    "ensemble": ["ensemble", "nuclei", "nuclei", "--to", "{}/x.feedseg.zip"],
    "models": ["models", "nuclei", "--picture", "{}/x.png"],
    "evaluate": ["evaluate", "--pred", "a.tif", "--truth", "a.tif", "--output", "{}"],
    "figures": ["figures", "run", "--output", "{}"],
    "check": ["check", ".", "--output", "{}"],
    "fetch": ["fetch", "sstem", "--data-dir", "{}"],
    "reproduce": ["reproduce", "fba-t1", "--root", "{}"],
    "reproduce --plan": ["reproduce", "fba-t1", "--plan", "{}/x.json"],
    "report": ["report", "run", "--output", "{}"],
    "train": ["train", "--config", "unet:dataset=synthetic", "--workdir", "{}"],
}


@pytest.mark.parametrize("verb", WRITING)
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, verb, capsys, monkeypatch):
    """Below a file, as if the name of a file were given for a folder."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.zeros((8, 8), np.uint8))
    arguments = [text.format("a.tif/out") for text in WRITING[verb]]
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and "a.tif/out: cannot be made" in shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_every_option_that_names_an_output_is_checked():
    """A verb that writes somewhere has an option among those that are looked at."""
    (verbs,) = (a for a in cli.parser()._actions if a.dest == "verb")
    known = cli._FOLDERS | cli._FILES | {"input", "run", "runs", "data", "pred", "truth", "example"}
    for name, verb in verbs.choices.items():
        paths = {action.dest for action in verb._actions if action.type is Path}
        assert paths <= known, (name, paths - known)


def test_a_reader_that_has_enough_is_no_error():
    """As `feedseg train --help | head -1`."""
    command = [sys.executable, "-m", "feedseg.cli", "train", "--help"]
    pipe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tiny.ROOT)
    pipe.stdout.close()
    assert pipe.stderr.read() == b"" and pipe.wait() in (0, 141)


def test_a_reader_that_has_enough_does_not_end_a_training(tmp_path):
    arguments = ["train", "--config", str(tiny.__file__), "--config.train.epochs=1"]
    command = [sys.executable, "-m", "feedseg.cli", *arguments, "--workdir", str(tmp_path / "run")]
    pipe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tiny.ROOT)
    pipe.stdout.close()
    assert b"Traceback" not in pipe.stderr.read() and pipe.wait() in (0, 141)
    assert (tmp_path / "run" / "result.json").exists()
