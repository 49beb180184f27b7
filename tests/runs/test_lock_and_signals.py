"""One process per run directory; signals become a flag."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from feedseg.runs.checkpoint import read_tree
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime.errors import InUse, UserError
from feedseg.runtime.signals import Stop

HOLD = """
import sys, time
from feedseg.runs.lock import WorkdirLock
lock = WorkdirLock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def holder(workdir, **environment) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, workdir],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert child.stdout.readline() == "held\n"
    return child


def test_second_process_is_refused_until_the_holder_is_killed(tmp_path):
    with holder(tmp_path / "run", SLURM_JOB_ID="4711") as child:
        with pytest.raises(InUse) as error:
            WorkdirLock(tmp_path / "run")
        child.kill()
    message = str(error.value)
    assert error.value.exit_code == 69
    assert (
        f"pid {child.pid}" in message and "job 4711" in message and os.uname().nodename in message
    )
    with WorkdirLock(tmp_path / "run"):
        pass


def test_lock_is_given_back(tmp_path):
    with WorkdirLock(tmp_path) as lock:
        with pytest.raises(InUse, match=f"pid {os.getpid()}"):
            WorkdirLock(tmp_path)
        lock.release()
        lock.release()
        WorkdirLock(tmp_path).release()


def test_unsigned_lock_file_is_still_a_lock(tmp_path):
    with WorkdirLock(tmp_path):
        (tmp_path / ".lock").write_bytes(b'{"host": "n')
        with pytest.raises(InUse, match="another process"):
            WorkdirLock(tmp_path)


def test_workdir_that_cannot_be_made_is_the_users(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write in .*--workdir"):
        WorkdirLock(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"])
def test_signal_sets_the_flag_and_handlers_come_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Stop() as stop:
        assert not stop.requested()
        os.kill(os.getpid(), number)
        assert stop.requested()
        assert stop.signal_name == name
    assert signal.getsignal(number) == before


def test_first_signal_is_the_one_named():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.signal_name == "SIGTERM"


def test_outside_the_main_thread_nothing_is_installed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Stop() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_second_interrupt_ends_at_once():
    code = (
        "import time; from feedseg.runtime.signals import Stop\n"
        "with Stop() as stop:\n"
        "    stop.to_save = True\n"
        "    print('ready', flush=True)\n"
        "    while not stop.requested(): time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "asked\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=10) == -signal.SIGINT
        assert "Ctrl-C again" in child.stderr.read()


TWO_PROCESSES = """
import signal, sys, time
signal.alarm(40)
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runtime.signals import Stop

folder, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, index, initialization_timeout=60)
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
same = NamedSharding(mesh, PartitionSpec())
state = jax.jit(lambda: {"w": jnp.zeros((8, 8)), "step": jnp.int32(0)}, out_shardings=same)()
advance = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), out_shardings=same, donate_argnums=0)
saved = Checkpoints(folder, 2)
target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), state)
found = saved.restore_latest(target)
step, state = found[:2] if found else (0, state)
print("from", step, flush=True)
with Stop(2) as stop:
    while not stop.requested():
        state, step = advance(state), step + 1000
        if step % 10_000 == 0:
            saved.save(step, state, {"step": step})
        time.sleep(0.005)
saved.save(step, state, {"step": step}, final=True)
saved.close()
print("saved", step, flush=True)
sys.exit(75)
"""


def two_processes(folder) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    clean |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", TWO_PROCESSES, folder, port]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": clean}
    return [subprocess.Popen([*command, str(index)], **pipes) for index in (0, 1)]


def said(child, word: str) -> str:
    """The next line that starts with `word`; the collectives talk on stdout too."""
    return next(line for line in child.stdout if line.startswith(word)).strip()


@pytest.mark.cluster
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(tmp_path):
    """And what they save together one process can read; both pass over a damaged step."""
    start = "from 0"
    for number in (signal.SIGUSR1, signal.SIGTERM):
        children = two_processes(tmp_path)
        try:
            assert [said(child, "from") for child in children] == [start, start]
            time.sleep(0.5)
            children[1].send_signal(number)
            first, second = (said(child, "saved") for child in children)
            assert [child.wait(timeout=60) for child in children] == [75, 75]
        finally:
            for child in children:
                child.kill()
                child.communicate()
        tree, meta = read_tree(tmp_path)
        assert first == second == f"saved {meta['step']}"
        assert (tree["w"] == meta["step"] / 1000).all()
        (tmp_path / str(meta["step"]) / "record" / "metadata").write_text("")
        start = f"from {read_tree(tmp_path)[1]['step']}"
    assert len(list(tmp_path.glob("damaged-*"))) == 1
