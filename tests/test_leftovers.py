"""Hidden files of killed processes: removed by the next one, unless somebody still writes them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg.inference import predict
from feedseg.runtime import file_lock, files
from tests.support.fake_model import bright, stand_in

TESTS = Path(__file__).parent
DEAD = 4_194_305  # above the largest pid of Linux
HOLD = """
import sys, time
from pathlib import Path
from feedseg.runtime import files
with files.temporary(Path(sys.argv[1])) as own:
    own.write_text("not yet whole")
    print(own, flush=True)
    time.sleep(60)
"""


def start(code: str, *arguments) -> subprocess.Popen:
    """A Python process in the folder of the tests."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    here = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    return subprocess.Popen(command, env=here, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def left_by_a_killed_process(path: Path) -> Path:
    with start(HOLD, path) as child:
        left = Path(child.stdout.readline().strip())
        child.kill()
    assert left.exists()
    return left


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "new" / "a.tif"
    left = left_by_a_killed_process(path)
    others = [f".a.tif.{DEAD}.raw", f".b.tif.{DEAD}.part", ".a.tif.part", f".a.tif.x.{DEAD}.part"]
    for name in others:  # of another purpose, of other files
        (path.parent / name).touch()
    files.write_atomically(path, lambda temporary: temporary.write_text("whole"))
    assert path.read_text() == "whole" and not left.exists()
    assert names(path.parent) == {path.name, *others}


def test_what_another_process_still_writes_is_left_alone(tmp_path):
    path = tmp_path / "a.tif"
    with start(HOLD, path) as child:
        theirs = Path(child.stdout.readline().strip())
        files.write_atomically(path, lambda temporary: temporary.write_text("whole"))
        assert theirs.read_text() == "not yet whole"
        child.kill()
    assert path.read_text() == "whole"


def test_a_leftover_of_the_own_number_is_emptied(tmp_path):
    """In containers processes often have the same number."""
    path = tmp_path / "a.tif"
    with files.temporary(path) as own:
        pass
    own.write_text("old")
    with files.temporary(path) as again:
        assert again == own and again.read_bytes() == b""
    assert not names(tmp_path)


def test_two_threads_write_one_after_the_other(tmp_path):
    path, seen = tmp_path / "a.tif", []
    inside = threading.Event()

    def write(text: str) -> None:
        with files.temporary(path) as own:
            inside.set()
            seen.append((own.read_text(), path.exists() and path.read_text()))
            own.write_text(text)
            own.replace(path)

    with files.temporary(path) as own:
        thread = threading.Thread(target=write, args=("second",))
        thread.start()
        assert not inside.wait(0.1)
        own.write_text("first")
        own.replace(path)
    thread.join()
    assert seen == [("", "first")] and path.read_text() == "second"
    assert names(tmp_path) == {"a.tif"}


def test_without_locks_files_are_written_and_leftovers_stay(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    path, left = tmp_path / "a.tif", tmp_path / f".a.tif.{DEAD}.part"
    left.touch()
    monkeypatch.setattr(file_lock.fcntl, "flock", no_locks)
    files.write_atomically(path, lambda temporary: temporary.write_text("whole"))
    assert names(tmp_path) == {path.name, left.name}


# A prediction that is killed ----------------------------------------------------------------------

KILLED = """
import sys
from tests.test_leftovers import stop_at
stop_at(int(sys.argv[1]), sys.argv[2])
"""


def segment(folder: Path, output: str, apply) -> list[Path]:
    """Predicts the images of `folder` with a stand-in for the model."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, apply)
        return predict.predict(
            folder / "run",
            folder / "in",
            folder / output,
            probabilities="float32",
            tile=16,
            progress=False,
        )


def stop_at(call: int, folder: str) -> None:
    """Runs in a process of its own: says when it reaches that tile, and stays there."""
    calls = []

    def apply(image):
        calls.append(1)
        if len(calls) == call:
            print("there", flush=True)
            time.sleep(60)
        return bright(image)

    segment(Path(folder), "out", apply)


def test_a_prediction_killed_twice_gives_the_same_files_and_nothing_else(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        image = rng.integers(0, 256, (60, 40), dtype=np.uint8)
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", image)
    calls = []

    def counted(image):
        calls.append(1)
        return bright(image)

    segment(tmp_path, "whole", counted)
    of_one = len(calls) // 2
    for call in (of_one - 2, of_one + of_one - 2):  # in the middle of a, then of b
        with start(KILLED, call, tmp_path) as child:
            assert child.stdout.readline() == "there\n"
            child.kill()
        hidden = [name for name in names(tmp_path / "out") if name.startswith(".")]
        assert any(name.endswith(".part") for name in hidden)
    segment(tmp_path, "out", bright)
    assert names(tmp_path / "out") == names(tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.tif"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
