"""One command at a time in a folder of results; parts of one job together."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from feedseg.runtime import file_lock, output_lock
from feedseg.runtime.errors import InUse, SaveFailed
from feedseg.runtime.output_lock import hold_file, hold_folder

HOLD = """
import sys, time
from feedseg.runtime.output_lock import hold_folder
with hold_folder(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(folder, share: str, seconds: float = 60) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, folder, share, str(seconds)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("a", ""), ("", "a"), ("", "")])
def test_others_are_refused_at_once_until_the_holder_is_killed(tmp_path, first, second):
    folder = tmp_path / "new" / "out"
    with holder(folder, first) as child:
        begun = time.monotonic()
        with pytest.raises(InUse, match=f"out is in use by .* pid {child.pid} since"):
            hold_folder(folder, second).__enter__()
        assert time.monotonic() - begun < 1
        child.kill()
    with hold_folder(folder, second):
        pass
    assert list(folder.iterdir()) == []


def test_parts_of_one_job_hold_a_folder_together(tmp_path):
    with holder(tmp_path, "a") as child:
        with hold_folder(tmp_path, "a"):
            with hold_folder(tmp_path, "a"):
                pass
            child.kill()
            child.wait()
            with pytest.raises(InUse):
                hold_folder(tmp_path, "b").__enter__()
        with hold_folder(tmp_path, "b"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_parts_that_start_at_the_same_moment_all_get_in(tmp_path):
    code = HOLD.replace('print("held", flush=True)', "")
    command = [sys.executable, "-c", code, tmp_path / "out", "a", "0.01"]
    for _ in range(3):
        children = [subprocess.Popen(command) for _ in range(8)]
        assert [child.wait(timeout=60) for child in children] == [0] * 8
        assert not list(tmp_path.glob("out/*"))


def test_an_empty_folder_that_was_made_for_it_is_removed(tmp_path):
    with pytest.raises(ValueError), hold_folder(tmp_path / "a" / "b"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    with hold_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_file_is_held_beside_it(tmp_path):
    with hold_file(tmp_path / "m.onnx"):
        with pytest.raises(InUse, match=r"m\.onnx is in use"):
            hold_file(tmp_path / "m.onnx").__enter__()
        with hold_file(tmp_path / "other.onnx"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_folder_that_goes_meanwhile_is_told_as_that(tmp_path, made_anew):
    with (
        pytest.raises(SaveFailed, match=r"out: was deleted or renamed while it was written to"),
        hold_folder(tmp_path / "out"),
    ):
        shutil.rmtree(tmp_path / "out")
        if made_anew:  # by a figure, say
            (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").read_text()
    with pytest.raises(FileNotFoundError), hold_folder(tmp_path / "out"):
        (tmp_path / "out" / "a").read_text()  # something else


def test_what_cannot_be_locked_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(file_lock, "fcntl", None)
    with hold_folder(tmp_path / "out"):
        (tmp_path / "out" / "file").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    if os.name != "nt":
        assert "has no locks; run one command at a time" in capsys.readouterr().err


def test_a_full_disk_is_no_missing_lock(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(output_lock.file_lock, "sign", full)
    with pytest.raises(SaveFailed, match=r"out: cannot be written \(No space"):
        hold_folder(tmp_path / "out", "a").__enter__()
