"""Commands that are stopped before, between and after what has to be saved."""

import signal
import subprocess
import sys
import time

import pytest

from tests.support import tiny

# A process that watches, then does `DO`, of which Python code in the main thread sees nothing.
WATCHED = """
import sys, time
from feedseg.runtime import signals
from feedseg.runtime.errors import guarded
def work():
    print("ready", flush=True)
    {do}
    return 0
signals.{watch}()
sys.exit(guarded(work))
"""
IN_C = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 300_000_000)"  # without the GIL
SWALLOWED = """
    try:
        time.sleep(30)
    except BaseException:
        raise ImportError("a library could not be loaded")
"""


def stopped(number: int, **code) -> tuple[int, str, float]:
    """Exit code, stderr and seconds after the signal of a process of such code."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", WATCHED.format(**code)]
    with subprocess.Popen(command, cwd=tiny.ROOT, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.2)
        child.send_signal(number)
        begun = time.monotonic()
        error = child.communicate(timeout=60)[1]
        return child.returncode, error, time.monotonic() - begun


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("do", [IN_C, SWALLOWED])
def test_a_training_with_nothing_to_save_ends_at_once(name, do):
    code, error, seconds = stopped(getattr(signal, name), watch="watch", do=do)
    assert code == 75 and seconds < 5
    assert error == f"feedseg: stopped by {name}; nothing was left to save: run again\n"


def test_a_training_with_something_to_save_is_asked():
    do = """
    with signals.Stop() as stop:
        stop.to_save = True
        while not stop.requested():
            time.sleep(0.01)
        print("saved", file=sys.stderr)"""
    code, error, _ = stopped(signal.SIGTERM, watch="watch", do=do)
    assert (code, error) == (0, "saved\n")


def test_who_waits_for_a_training_is_told():
    do = """
    with signals.Stop() as stop:
        stop.farewells += [print, lambda error: 1 / 0, lambda error: print(error.exit_code)]
        stop.farewells.append(lambda _: sys.stdout.flush())
        stop.farewells.append(lambda _: print("told", file=sys.stderr))
        time.sleep(30)"""
    code, error, _ = stopped(signal.SIGTERM, watch="watch", do=do)
    assert code == 75 and error.startswith("told\nfeedseg: stopped by SIGTERM")


@pytest.mark.parametrize(("do", "least", "most"), [(IN_C, 2, 9), (SWALLOWED, 0, 5)])
def test_an_interrupted_command_ends_within_seconds(do, least, most):
    code, error, seconds = stopped(signal.SIGINT, watch="watch_interrupt", do=do)
    assert (code, error) == (130, "feedseg: interrupted\n")
    assert least <= seconds < most


def test_a_training_ends_at_once_while_it_evaluates(tmp_path):
    code = (
        "import sys, time; from feedseg import main; from feedseg.training import train, result\n"
        "from feedseg.runtime import signals\n"
        "def evaluate(*_): print('evaluating', flush=True); time.sleep(60)\n"
        "result.test_matrices = evaluate; signals.watch()\n"
        "sys.exit(main.guarded(main.train, sys.argv[1:]))"
    )
    flags = ["--config", "tests/support/tiny.py", f"--workdir={tmp_path / 'run'}"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *flags], cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert any(line == "evaluating\n" for line in child.stdout)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=5) == 75
    assert '"exit_code": 75' in (tmp_path / "run" / "heartbeat.json").read_text()
