"""Whole runs: their files, what interrupts them, what is refused, and that they go on as they were.

Runs in this process end in the same `guarded(train, arguments)` as a command line; the signals that
end a process, a full disk and the command a new user types are tried in processes of their own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg import main
from feedseg.datasets import synthetic
from feedseg.inference.predict import predict
from feedseg.inference.trained import load_run
from feedseg.runs.checkpoint import read_tree, saved_steps
from feedseg.runs.directory import RunDir, read_json
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime import mesh as meshes
from feedseg.runtime.errors import SaveFailed, UserError
from feedseg.runtime.logs import Log
from feedseg.training import optimizer, result, train
from feedseg.training.run import keep_best
from tests.support import run_files, tiny

TINY = str(Path(tiny.__file__))
LABELLED = 3 * 32 * 32  # pixels of the test images, none of them void

# `python -m feedseg.main` that sends itself a signal before a given training step of its own.
INTERRUPTED = """
import os, signal, sys
from feedseg import main
from feedseg.runtime import mesh as meshes
number, signal_name, *arguments = sys.argv[1:]
compile_train = meshes.compile_train

def interrupted(mesh, step, *options):
    run, left = compile_train(mesh, step, *options), [int(number)]
    def one(state, items):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), getattr(signal, signal_name))
        return run(state, items)
    return one

meshes.compile_train = interrupted
sys.exit(main.guarded(main.train, arguments))
"""

FULL_DISK = """
import resource, sys
from feedseg import main
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
sys.exit(main.guarded(main.train, sys.argv[1:]))
"""


def flags(workdir: Path, *more: str) -> list[str]:
    return [f"--config={TINY}", f"--workdir={workdir}", *more]


def run(workdir: Path, *more: str) -> int:
    """Exit code of a run in this process."""
    return main.guarded(main.train, flags(workdir, *more))


def process(*arguments, code: str = "", **options) -> subprocess.CompletedProcess:
    """`python -m feedseg.main ARGUMENTS`, or other code, in the root of the repository."""
    how = ["-c", code] if code else ["-m", "feedseg.main"]
    options = {"cwd": tiny.ROOT, "timeout": 600, **options}
    return subprocess.run(
        [sys.executable, *how, *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing has interrupted. Tests only read it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    ended = process(*flags(workdir))
    assert ended.returncode == 0, ended.stderr
    assert "mean" in ended.stdout and str(workdir / "result.json") in ended.stdout
    return workdir


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def interrupt(monkeypatch):
    """Sends this process a SIGTERM before a given training step; figures are left out."""
    monkeypatch.setattr(result, "draw", lambda *_: None)
    compile_train = meshes.compile_train

    def before(number: int) -> None:
        def compiled(mesh, step, *options):
            program, calls = compile_train(mesh, step, *options), []

            def one(state, items):
                calls.append(1)
                if len(calls) == number:
                    os.kill(os.getpid(), signal.SIGTERM)
                return program(state, items)

            return one

        monkeypatch.setattr(meshes, "compile_train", compiled)

    yield before


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint of a folder, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(read_tree(folder)[0])
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def assert_same_run(one: Path, other: Path) -> None:
    """Equal bytes of the metrics, equal results, equal arrays of the last and best checkpoint."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert run_files.scores(one) == run_files.scores(other)
    for folder in ("checkpoints", "best"):
        assert saved_steps(one / folder) == saved_steps(other / folder)
        a, b = arrays(one / folder), arrays(other / folder)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name
    assert not [p for p in other.rglob("*") if "tmp" in p.name or "damaged" in p.name]


def only_line(capsys) -> str:
    """What went to stderr, which is one line without a traceback."""
    text = capsys.readouterr().err
    assert text.startswith("feedseg: ") and text.count("\n") == 1
    return text


# A whole run ------------------------------------------------------------------------------------


def test_result(whole):
    result = json.loads((whole / "result.json").read_text())
    assert result["complete"] is True
    assert result["experiment"] == result["run_name"] == "tiny"
    assert result["counts"] == {"train": 8, "val": 1, "test": 3}
    assert result["class_names"] == ["cytoplasm", "membrane", "nucleus"]
    assert np.shape(result["confusion"]) == (3, 3) and np.sum(result["confusion"]) == LABELLED
    right = np.trace(result["confusion"]) / LABELLED
    assert result["metrics"]["final"]["accuracy"] == pytest.approx(right)
    assert {"miou", "mdice", "iou/nucleus", "dice/nucleus"} <= set(result["metrics"]["final"])
    assert set(result["per_image"]) == set(result["metrics"]["final"])
    count = sum(leaf.size for leaf in jax.tree.leaves(read_tree(whole / "best")[0]["params"]))
    assert result["parameters"] == count
    for key in ("config_hash", "data_hash", "seed", "version", "jax", "python", "seconds"):
        assert key in result
    assert result["device"] == "1 x cpu"


def test_best_is_the_epoch_with_the_highest_validation_score(whole):
    rows = RunDir(whole).rows()
    scores = [row["val/miou"] for row in rows]
    best = json.loads((whole / "result.json").read_text())["best"]
    last_of_the_highest = len(scores) - scores[::-1].index(max(scores))
    assert best["epoch"] == last_of_the_highest
    assert best["step"] == best["epoch"] * tiny.STEPS_PER_EPOCH
    assert best["val_miou"] == max(scores)
    assert saved_steps(whole / "best") == [best["step"]]


def test_only_a_score_as_high_as_the_highest_is_saved():
    scores = (0.0, 0.5, 0.4, 0.5, float("nan"), 0.1)
    assert saved_epochs(scores) == ([1, 2, 4], {"best_miou": 0.5, "best_epoch": 4}, [])


def saved_epochs(scores) -> tuple[list[int], dict, list[str]]:
    """Epochs saved as the best, the last notes and what was said."""
    saved, said, meta = [], [], {"best_miou": -1.0, "best_epoch": 0}
    best = SimpleNamespace(save=lambda step, tree, notes, final: saved.append(step // 4))
    state, directory = SimpleNamespace(variables=dict), SimpleNamespace(identity=dict)
    setup = SimpleNamespace(directory=directory, log=said.append)
    for epoch, score in enumerate(scores, 1):
        row = {"epoch": epoch, "val/miou": score}
        meta = keep_best(setup, best, state, 4 * epoch, row, meta)
    return saved, meta, said


def test_while_no_score_is_a_number_the_latest_epoch_is_kept():
    nan = float("nan")
    saved, meta, said = saved_epochs((nan, nan))
    assert saved == [1, 2] and meta == {"best_miou": -1.0, "best_epoch": 2}
    assert len(said) == 1 and "the latest epoch is kept as best" in said[0]
    saved, meta, _ = saved_epochs((nan, 0.1, nan, 0.05))
    assert saved == [1, 2] and meta == {"best_miou": 0.1, "best_epoch": 2}


def test_metrics_have_a_row_per_epoch(whole):
    rows = RunDir(whole).rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [4, 8, 12]
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss/final/cross_entropy"])
        assert row["lr"] == pytest.approx(1e-2)
        assert 0 <= row["val/iou/membrane"] <= 1
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_files(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {
        *("config.json", "data.json", "metrics.jsonl", "result.json", "log.txt", ".lock"),
        *("checkpoints", "best", "curves.png", "confusion.png", "panel.png", "heartbeat.json"),
    }
    sign = json.loads((whole / "heartbeat.json").read_text())
    assert (sign["step"], sign["total_steps"], sign["exit_code"]) == (12, 12, 0)
    facts = json.loads((whole / "data.json").read_text())
    assert facts["class_names"] == ["cytoplasm", "membrane", "nucleus"] and facts["items"] == 12
    log = (whole / "log.txt").read_text()
    assert "epoch 3/3" in log and log.index("compiled in ") < log.index("epoch 1/3")
    assert saved_steps(whole / "checkpoints") == [8, 12]


def test_figures_that_cannot_be_drawn_lose_no_result(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise ValueError("five channels are no picture")

    monkeypatch.setattr(result, "panel", fails)
    assert run(tmp_path / "run", "--config.train.epochs=1") == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["complete"]
    assert "warning: not all figures could be drawn (ValueError: five" in capsys.readouterr().out


def test_a_finished_run_shows_its_result_at_once(whole, capsys, monkeypatch):
    monkeypatch.setattr(train, "set_up", None)  # would have to be called
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert run(whole) == 0
    shown = capsys.readouterr().out
    miou = 100 * json.loads((whole / "result.json").read_text())["metrics"]["final"]["miou"]
    assert "is finished" in shown and f"{miou:.1f}" in shown
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert {p for p in after if after[p] != before.get(p)} <= {whole / ".lock"}


def test_a_result_without_a_score_is_shown(copied, capsys):
    """JSON has no NaN: what had no score comes back as null."""
    result = read_json(copied / "result.json")
    result["metrics"]["final"]["iou/nucleus"] = None
    result["best"]["val_miou"] = None
    result["boundary"] = {"v_rand": 0.5, "adapted_rand_error": None}
    run_files.edit(copied / "result.json", **result)
    assert run(copied) == 0
    shown = capsys.readouterr().out
    assert "0.5000" in shown and "-" in shown.splitlines()[-2]


def test_two_devices_train_evaluate_and_agree(whole, tmp_path, monkeypatch):
    """Also with an evaluation batch that does not divide by them."""
    monkeypatch.setattr(result, "draw", lambda *_: None)
    more = ("--config.runtime.devices=2", "--config.train.eval_batch_size=3")
    assert run(tmp_path / "run", *more, "--config.train.epochs=1") == 0
    row, expected = RunDir(tmp_path / "run").rows()[0], RunDir(whole).rows()[0]
    assert row["loss"] == pytest.approx(expected["loss"], abs=1e-3)
    scores = json.loads((tmp_path / "run" / "result.json").read_text())
    assert np.sum(scores["confusion"]) == LABELLED and scores["device"] == "2 x cpu"


# Interrupted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [4, 6, 12], ids=["epoch ends", "within", "last step"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(whole, tmp_path, interrupt, capsys, number):
    interrupt(number)
    assert run(tmp_path) == 75
    assert f"stopped by SIGTERM at step {number}: run again" in only_line(capsys)
    assert saved_steps(tmp_path / "checkpoints")[-1] == number
    assert len(RunDir(tmp_path).rows()) == number // tiny.STEPS_PER_EPOCH
    interrupt(0)
    assert run(tmp_path) == 0
    assert f"continuing at step {number} of 12" in capsys.readouterr().out
    assert_same_run(whole, tmp_path)


def test_killed_and_stopped_processes_go_on_as_if_they_had_not_been(whole, tmp_path, monkeypatch):
    killed = process(6, "SIGKILL", *flags(tmp_path), code=INTERRUPTED)
    assert killed.returncode == -signal.SIGKILL
    stopped = process(3, "SIGTERM", *flags(tmp_path), code=INTERRUPTED)
    assert stopped.returncode == 75, stopped.stderr
    assert "run again" in stopped.stderr and "Traceback" not in stopped.stderr
    assert not (tmp_path / "result.json").exists()
    monkeypatch.setattr(result, "draw", lambda *_: None)
    assert run(tmp_path) == 0
    assert_same_run(whole, tmp_path)


def test_going_on_with_programs_of_several_steps(tmp_path, interrupt, capsys):
    interrupt(6)
    assert run(tmp_path) == 75
    interrupt(0)
    capsys.readouterr()
    assert run(tmp_path, "--config.runtime.steps_per_dispatch=0") == 2
    assert "continues at step 6, which 4 does not divide; take 1" in only_line(capsys)


def test_full_disk(tmp_path):
    """Files of more than 5 kB cannot be written: a state needs more, the other files do not."""
    ended = process(*flags(tmp_path), code=FULL_DISK)
    assert ended.returncode == 73, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"feedseg: cannot save step 4 in {tmp_path / 'best'}: ")
    assert "File too large" in last and "free space" in last
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "result.json").exists()
    assert not list(tmp_path.rglob("*tmp*"))


def test_small_files_on_a_full_disk(tmp_path, capsys):
    directory = RunDir(tmp_path)
    directory.metrics = Path("/dev/full")
    with pytest.raises(SaveFailed, match=r"/dev/full: cannot be written .*free space"):
        directory.append({"epoch": 1})
    log = Log()
    log.keep_in(Path("/dev/full"))
    log("one\ntwo")
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\n"
    assert shown.err == "/dev/full ends here: No space left on device\n"


# Not finite -------------------------------------------------------------------------------------


def break_rate(monkeypatch, at: int, value: float) -> None:
    """From step `at` on, the learning rate is another one."""
    monkeypatch.setattr(
        optimizer, "schedule", lambda *_: lambda step: jnp.where(step < at, 1e-2, value)
    )
    monkeypatch.setattr(result, "draw", lambda *_: None)


def test_a_learning_rate_that_is_too_large(tmp_path, capsys):
    assert run(tmp_path, "--config.optimizer.learning_rate=1e38") == 65
    text = only_line(capsys)
    assert "NaN or infinite at step 1 (images synthetic_0" in text
    assert text.count("synthetic_0") == 2, "the images of the batch"
    assert "last good checkpoint: none was saved before" in text
    assert "optimizer.learning_rate" in text and "optimizer.clip_norm" in text
    assert saved_steps(tmp_path / "checkpoints") == []


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path, capsys, monkeypatch):
    break_rate(monkeypatch, at=4, value=1e38)  # at once after the save, which may be under way
    assert run(tmp_path) == 65
    text = only_line(capsys)
    assert "at step 5 (images" in text
    assert f"last good checkpoint: {tmp_path / 'checkpoints' / '4'} is kept" in text
    assert saved_steps(tmp_path / "checkpoints") == saved_steps(tmp_path / "best") == [4]
    good = arrays(tmp_path / "checkpoints")
    assert all(np.isfinite(value).all() for value in good.values())
    probability = load_run(tmp_path, "latest").apply(np.zeros((1, 32, 32, 1), np.float32))
    np.testing.assert_allclose(np.sum(probability, -1), 1, atol=1e-5)

    monkeypatch.undo()
    monkeypatch.setattr(result, "draw", lambda *_: None)
    assert run(tmp_path) == 0, "it goes on from there"
    assert len(RunDir(tmp_path).rows()) == 3


@pytest.mark.parametrize("number", [0, 6], ids=["epoch ends", "stopped"])
def test_parameters_that_are_not_finite_are_never_saved(
    tmp_path, capsys, monkeypatch, interrupt, number
):
    """The last update before a save broke them, so no loss has shown it yet."""
    at = number - 1 if number else 7
    break_rate(monkeypatch, at=at, value=float("nan"))
    interrupt(number)
    assert run(tmp_path) == 65
    assert f"NaN or infinite at step {at} (images" in only_line(capsys)
    assert saved_steps(tmp_path / "checkpoints") == saved_steps(tmp_path / "best") == [4]


# Refused ----------------------------------------------------------------------------------------


def test_another_configuration_in_the_same_folder(whole, capsys):
    assert run(whole, "--config.seed=3", "--config.train.epochs=9") == 2
    text = only_line(capsys)
    assert "seed: 0 -> 3" in text and "train.epochs: 3 -> 9" in text and str(whole) in text
    assert "choose another --workdir" in text


def test_where_it_runs_is_not_the_configuration(whole):
    assert run(whole, "--config.data_dir=/elsewhere", "--config.runtime.devices=2") == 0


def test_folder_in_use(tmp_path, capsys):
    with WorkdirLock(tmp_path):
        assert run(tmp_path) == 69
    text = only_line(capsys)
    assert f"pid {os.getpid()}" in text and str(tmp_path) in text
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def write_images(root: Path) -> None:
    """The images of the tiny run as files of a user."""
    for section in synthetic.load(None, tiny.get_config().data).sections:
        for kind, array in (("images", section.image[..., 0]), ("labels", section.label)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{section.name}.png")


def test_data_that_have_changed(tmp_path, capsys, interrupt):
    root, workdir = tmp_path / "mine", tmp_path / "run"
    write_images(root)
    more = ("--config.data.name=folder", f"--config.data_dir={root}")
    interrupt(2)
    assert run(workdir, *more) == 75
    first = sorted((root / "images").iterdir())[0]
    pixels = np.array(Image.open(first))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(first)
    capsys.readouterr()
    assert run(workdir, *more) == 2
    text = only_line(capsys)
    assert f"the data of {workdir} have changed since this run began" in text
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(first)
    interrupt(1)
    assert run(workdir, *more) == 75, "with the old data it goes on"


@pytest.mark.parametrize("other", [(), ("--config.data_dir=nowhere",)])
def test_the_first_command_without_data(tmp_path, other):
    (tmp_path / "configs").symlink_to(tiny.ROOT / "configs")
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "FEEDSEG_DATA": "empty", "PYTHONPATH": str(tiny.ROOT)}
    ended = process("--config", "configs/aep_irpe.py", *other, cwd=tmp_path, env=environment)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    place = "nowhere" if other else "empty"
    assert f"no data for 'irpe': looked for {place}/irpe, " in ended.stderr
    assert ("set FEEDSEG_DATA or --config.data_dir" in ended.stderr) is not bool(other)
    assert "\n  expected: " in ended.stderr and "\n  to get it: NIST" in ended.stderr
    command = "python -m feedseg.main --config configs/aep_irpe.py:dataset=synthetic"
    assert command in ended.stderr
    assert not (tmp_path / "runs").exists()


MISTAKES = [
    (
        "--config.data.crop_size=31 --config.model.filters=(4,8)",
        r"image sides 31 x 31 must be multiples of 2; nearest: 32 x 32",
    ),
    ("--config.runtime.require_gpu=True", r"JAX sees no accelerator: run `feedseg doctor`"),
    ("--config.runtime.steps_per_dispatch=3", r"does not divide an epoch of 4 steps"),
    ("--config.train.batch_size=0", r"train.batch_size=0: from 1 to"),
    ("--config.train.epochs=0", r"train.epochs=0: from 1 to"),
    ("--config.data.crop_size=-1", r"data.crop_size=-1: from 0 to"),
    ("--config.runtime.devices=-1", r"runtime.devices=-1: from 0 to"),
    ("--config.train.compute_dtype=half", r"compute_dtype='half': choose float32 or bfloat16"),
    ("--config.runtime.devices=9", r"only 4 device(s) are here"),
    ("--config.model.name=unnet", r"'unnet' is unknown, did you mean 'unet'?"),
    ("--config.data.name=syntetic", r"'syntetic' is unknown, did you mean 'synthetic'?"),
    ("--config.evaluate.membrane=wall", r"evaluate.membrane='wall': the classes are cytoplasm"),
]


@pytest.mark.parametrize("argument, message", MISTAKES)
def test_mistakes_are_named_and_leave_the_folder_free(tmp_path, capsys, argument, message):
    assert run(tmp_path, *argument.split()) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "config.json").exists(), "the mended command would be refused"
    assert not (tmp_path / "checkpoints").exists()


def test_too_few_images_for_the_devices(tmp_path, capsys):
    more = ("--config.runtime.devices=0", "--config.train.batch_size=12")
    assert run(tmp_path, *more, "--config.data.synthetic_count=9") == 2
    text = only_line(capsys)
    assert "batches of all 6 training images do not divide by 4 devices" in text
    assert "runtime.devices=1 or train.batch_size" in text


# Used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", ["best", "latest"])
def test_a_run_segments_an_image(whole, tmp_path, checkpoint):
    picture = np.random.default_rng(0).integers(0, 256, (45, 70), np.uint8)
    Image.fromarray(picture).save(tmp_path / "cells.png")
    written = predict(
        whole, tmp_path / "cells.png", tmp_path / "out", checkpoint=checkpoint, progress=False
    )
    assert written == [tmp_path / "out" / "cells_labels.tif"]
    labels = tifffile.imread(written[0])
    assert labels.shape == picture.shape and labels.dtype == np.uint8 and labels.max() < 3

    trained = load_run(whole, checkpoint)
    assert (trained.channels, trained.stride) == (1, 1)
    assert trained.class_names == ("cytoplasm", "membrane", "nucleus")
    expected = trained.apply(picture[None, :44, :, None].astype(np.float32) / 255).argmax(-1)[0]
    inside = np.s_[trained.halo : 44 - trained.halo, trained.halo : -trained.halo]
    assert labels[:44][inside].size > 500
    np.testing.assert_array_equal(labels[:44][inside], np.asarray(expected)[inside])


def edit_config(workdir: Path, **model) -> None:
    path = workdir / "config.json"
    run_files.edit(path, model={**read_json(path)["model"], **model})


@pytest.mark.parametrize("model", [dict(filters=[8]), dict(filters=[4, 8]), dict(conv_bias=False)])
def test_checkpoint_of_another_network(copied, model):
    edit_config(copied, **model)
    with pytest.raises(UserError, match="best: is of another configuration") as e:
        load_run(copied)
    assert "\n" not in str(e.value) and str(copied) in str(e.value)


def test_folders_that_are_no_runs(copied, tmp_path):
    with pytest.raises(UserError, match=r"config\.json: no such file; name the directory of a run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="checkpoint 'bset': choose best or latest"):
        load_run(copied, "bset")
    shutil.rmtree(copied / "best")
    with pytest.raises(UserError, match=r"no checkpoint in .*best"):
        load_run(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read .* restore it from a copy"):
        load_run(copied)
