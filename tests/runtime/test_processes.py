"""Several processes as one run: found by the environment, equal to one process, ending together.

The runs are two CPU processes on this machine, met by the plain variables; what they make is
compared with one process of two devices, bit for bit.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feedseg.inference.trained import read_variables
from feedseg.runs.checkpoint import saved_steps
from feedseg.runs.lock import WorkdirLock
from feedseg.runtime.errors import UserError
from feedseg.runtime.launcher import ProcessPlace, find
from tests.support import run_files, tiny

# `python -m feedseg.main` in which one process sends itself a signal before a step of its own.
INTERRUPTED = """
import os, signal, sys, time
from feedseg import main
from feedseg.runtime import mesh as meshes
process, number, signal_name, *arguments = sys.argv[1:]
compile_train = meshes.compile_train

def interrupted(mesh, step, *options):
    run, left = compile_train(mesh, step, *options), [int(number)]
    def one(*args):
        left[0] -= 1
        if not left[0] and os.environ["FEEDSEG_PROCESS"] == process:
            os.kill(os.getpid(), getattr(signal, signal_name))
            time.sleep(2)  # a notice reaches the other within a second
        return run(*args)
    return one

meshes.compile_train = interrupted
sys.exit(main.guarded(main.train, arguments))
"""


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """The tests' environment with so many devices and without any launcher's variables."""
    flags = os.environ["XLA_FLAGS"].split()
    flags = [flag for flag in flags if "device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    return os.environ | {"XLA_FLAGS": " ".join(flags)} | more


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(workdir: Path, *more: str, code: tuple = (), **options) -> subprocess.Popen:
    how = ["-c", *code] if code else ["-m", "feedseg.main"]
    flags = [f"--config={Path(tiny.__file__)}", f"--workdir={workdir}"]
    flags += ["--config.runtime.devices=0", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *how, *flags], cwd=tiny.ROOT, **pipes, **options)


class Pair:
    """Two processes that make one run; each ends within `timeout` s."""

    def __init__(self, workdir: Path, *more: str, code: tuple = (), differing: tuple = ()):
        met = {"FEEDSEG_COORDINATOR": f"127.0.0.1:{free_port()}", "FEEDSEG_PROCESSES": "2"}
        self.processes = [
            start(
                workdir,
                *more,
                *(differing if index else ()),
                code=code,
                env=environment(**met, FEEDSEG_PROCESS=str(index)),
            )
            for index in (0, 1)
        ]

    def end(self, timeout: float = 120) -> tuple[list[int], list[str], list[str]]:
        """Exit codes, what was printed, and errors, of both."""
        try:
            said = [process.communicate(timeout=timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        codes = [process.returncode for process in self.processes]
        return codes, [out for out, _ in said], [error for _, error in said]


def one_process(workdir: Path, *more: str) -> None:
    """The same run in one process of two devices."""
    process = start(workdir, *more, env=environment(2))
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error


def messages(error: str) -> list[str]:
    return [line for line in error.splitlines() if line.startswith("feedseg: ")]


def assert_same_run(one: Path, other: Path) -> None:
    """Equal bytes of the metrics, equal results, equal arrays of both checkpoints."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert run_files.scores(one) == run_files.scores(other)
    assert saved_steps(one / "checkpoints") == saved_steps(other / "checkpoints")
    for name in ("best", "latest"):
        assert_equal(read_variables(one, name), read_variables(other, name))
    assert not [p for p in other.rglob("*") if "tmp" in p.name or "damaged" in p.name]


def assert_equal(one, other) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one.dtype == other.dtype and np.array_equal(one, other)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """One process of two devices."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    one_process(workdir)
    return workdir


# Runs -----------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_two_processes_make_the_bits_of_one_with_two_devices(reference, tmp_path):
    workdir = tmp_path / "run"
    codes, said, errors = Pair(workdir).end()
    assert codes == [0, 0], errors
    assert_same_run(reference, workdir)
    assert json.loads((workdir / "result.json").read_text())["device"] == "2 x cpu in 2 processes"
    assert "epoch 3/3" in said[0] and "mean" in said[0]
    own = [line for line in said[1].splitlines() if "Gloo" not in line]
    assert own == []  # process 0 alone speaks
    assert (workdir / "log.txt").read_text().count("epoch 1/3") == 1
    assert {p.name for p in workdir.glob("*.png")} == {p.name for p in reference.glob("*.png")}


@pytest.mark.cluster
def test_a_stopped_pair_continues_as_one_process_and_the_other_way_round(reference, tmp_path):
    """SIGTERM to one of two: both save the same step and end with 75."""
    workdir = tmp_path / "run"
    code = (INTERRUPTED, "1", "3", "SIGTERM")
    codes, _, errors = Pair(workdir, code=code).end()
    assert codes == [75, 75], errors
    told = messages(errors[0]) + messages(errors[1])
    (step,) = saved_steps(workdir / "checkpoints")[-1:]
    assert len(told) == 1 and f"at step {step}" in told[0]
    assert 3 <= step < tiny.STEPS
    other = Path(shutil.copytree(workdir, tmp_path / "other"))
    one_process(workdir)
    assert_same_run(reference, workdir)
    codes, said, errors = Pair(other).end()
    assert codes == [0, 0], errors
    assert f"continuing at step {step}" in said[0]
    assert_same_run(reference, other)


@pytest.mark.cluster
def test_a_pair_goes_on_for_more_epochs_and_stops_early_as_one_process_does(tmp_path):
    """Both processes know the shorter run, and agree on the end; process 0 alone logs."""
    patience = ("--config.train.patience=1", "--config.optimizer.learning_rate=1e-6")
    longer = (*patience, "--config.train.epochs=9", "--config.runtime.loggers=csv")
    one_process(tmp_path / "one", *patience, "--config.train.epochs=1")
    shutil.copytree(tmp_path / "one", tmp_path / "pair")
    one_process(tmp_path / "one", *longer)
    codes, said, errors = Pair(tmp_path / "pair", *longer).end()
    assert codes == [0, 0], errors
    assert "going on from 1 to 9 epochs" in said[0] and "stopped early at epoch" in said[0]
    assert_same_run(tmp_path / "one", tmp_path / "pair")
    result = run_files.scores(tmp_path / "pair")
    assert result["went_on_from"] == [1] and 1 < result["stopped"]["epoch"] < 9
    lines = (tmp_path / "pair" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + result["stopped"]["epoch"]


def kill_one(workdir: Path, killed: int) -> None:
    """A pair of which one process is killed at its sixth step; the other ends within 30 s."""
    pair = Pair(workdir, code=(INTERRUPTED, str(killed), "6", "SIGKILL"))
    dead, other = pair.processes[killed], pair.processes[1 - killed]
    try:
        dead.wait(120)
        other.wait(30)
    finally:
        pair.end()
    assert dead.returncode == -signal.SIGKILL and other.returncode not in (0, 75, None)


@pytest.mark.cluster
def test_the_killed_second_process_ends_the_first_and_the_run_continues(reference, tmp_path):
    kill_one(tmp_path / "run", 1)
    one_process(tmp_path / "run")
    assert_same_run(reference, tmp_path / "run")


@pytest.mark.cluster
def test_the_killed_first_process_ends_the_second(tmp_path):
    kill_one(tmp_path / "run", 0)
    assert not (tmp_path / "run" / "result.json").exists()


# Failures -------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_a_busy_directory_ends_both_with_69_and_one_message(tmp_path):
    with WorkdirLock(tmp_path / "run"):
        codes, _, errors = Pair(tmp_path / "run").end(60)
    told = messages(errors[0]) + messages(errors[1])
    assert codes == [69, 69]
    assert len(told) == 1 and f"in use by {socket.gethostname()} pid {os.getpid()}" in told[0]
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.cluster
def test_a_failure_of_one_process_ends_the_other_with_its_code(tmp_path):
    code = (
        "import os, sys; from feedseg import datasets, main\n"
        "load = datasets.load\n"
        "def other(config):\n"
        "    data = load(config)\n"
        "    if os.environ['FEEDSEG_PROCESS'] == '1': data.images[0, 0, 0] ^= 1\n"
        "    return data\n"
        "datasets.load = other\n"
        "sys.exit(main.guarded(main.train, sys.argv[1:]))",
    )
    codes, _, errors = Pair(tmp_path / "run", code=code).end(60)
    assert codes == [2, 2], errors
    assert messages(errors[0]) == []
    (told,) = messages(errors[1])
    assert "the data set of process 1 on" in told and "is not that of process 0" in told


@pytest.mark.cluster
def test_different_arguments_and_wrong_ones_are_told_once(tmp_path):
    different = Pair(tmp_path / "run", differing=("--config.train.epochs=2",))
    wrong = Pair(tmp_path / "wrong", "--config.train.epoch=2")
    codes, _, errors = different.end(60)
    assert codes == [2, 2] and "the configuration of process 1" in "".join(messages(errors[1]))
    codes, _, errors = wrong.end(60)
    assert codes == [2, 2]
    (told,) = messages(errors[0]) + messages(errors[1])
    assert "epoch" in told


@pytest.mark.cluster
def test_a_process_whose_others_do_not_come_gives_up_with_a_message(tmp_path):
    code = (
        "import sys; from feedseg.runtime.processes import connect\n"
        "from feedseg.runtime.launcher import ProcessPlace\n"
        "connect(ProcessPlace(f'127.0.0.1:{sys.argv[1]}', 2, int(sys.argv[2])), patience_s=1)"
    )
    for index in "01":
        command = [sys.executable, "-c", code, str(free_port()), index]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2
        (told,) = messages(ended.stderr)
        assert f"process {index} of 2 has waited 1 s" in told and "FEEDSEG_PROCESSES=1" in told


def test_an_unknown_host_and_a_port_in_use_are_the_users():
    code = (
        "import sys; from feedseg.main import guarded\n"
        "from feedseg.runtime.processes import start\n"
        "sys.exit(guarded(start))"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, reason in (
            ("no-such-host.invalid:7000", "no-such-host"),
            (f"127.0.0.1:{port}", "in use"),
        ):
            met = {"FEEDSEG_COORDINATOR": address, "FEEDSEG_PROCESSES": "2", "FEEDSEG_PROCESS": "0"}
            command = [sys.executable, "-c", code]
            ended = subprocess.run(command, env=os.environ | met, capture_output=True, text=True)
            assert ended.returncode == 2
            (told,) = messages(ended.stderr)
            assert reason in told and "FEEDSEG_COORDINATOR" in told


def test_one_process_starts_nothing_and_does_not_import_jax():
    code = (
        "import sys, threading; from feedseg.runtime.processes import *\n"
        "with Processes():\n"
        "    assert from_first(lambda: 7) == 7 and is_first() and count() == 1\n"
        "    check_same('x', 'y')\n"
        "assert 'jax' not in sys.modules and threading.active_count() == 1"
    )
    alone = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | alone, timeout=60)
    assert ended.returncode == 0


# Environment ----------------------------------------------------------------------------------

STEP = {
    "SLURM_JOB_ID": "100",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[07-08,12]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.1.0.4,10.2.0.4:40000",
}
PLAIN = {"FEEDSEG_COORDINATOR": "a:70", "FEEDSEG_PROCESSES": "2", "FEEDSEG_PROCESS": "1"}


def test_srun_gives_rank_and_first_node():
    assert find(STEP) == ProcessPlace("gpu07:61540", 4, 3, (1,))
    assert find(STEP | {"SLURM_STEP_NODELIST": "n1,n2"}).coordinator == "n1:61540"
    assert find(STEP | {"SLURM_STEP_NODELIST": "n1"}).coordinator == "n1:61540"
    assert find(STEP | {"SLURM_STEP_ID": "1"}).coordinator != "gpu07:61540"


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1", "SLURM_GPUS_PER_TASK": "1"}, None),  # its own one
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_PER_TASK": "2"}, None),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "4"}, None),  # not all of the node
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2"}, (1,)),
        ({"CUDA_VISIBLE_DEVICES": "3"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)),  # both are visible to both
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "JAX_LOCAL_DEVICE_IDS": "0"}, None),
    ],
)
def test_processes_that_share_a_node_share_its_gpus(environ, devices):
    assert find(STEP | environ).devices == devices


def test_one_process_on_a_node_takes_all_of_its_gpus():
    node = {"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"}
    eight = ",".join(map(str, range(8)))
    assert find(STEP | node | {"CUDA_VISIBLE_DEVICES": eight}).devices is None
    uneven = {"SLURM_STEP_TASKS_PER_NODE": "3,1", "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}
    assert find(STEP | uneven | {"CUDA_VISIBLE_DEVICES": eight}).devices is None


def test_gpus_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(UserError, match=r"2 processes .* 3 GPUs of CUDA_VISIBLE_DEVICES=0,1,2"):
        find(STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2"})


def test_open_mpi_comes_before_the_slurm_job_around_it():
    assert find(STEP | MPI | {"CUDA_VISIBLE_DEVICES": ""}) == ProcessPlace("10.1.0.4:61442", 4, 2)
    six = {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fe80::1,fe80::2]:43370"}
    assert find(MPI | six).coordinator == "[fe80::1]:61441"


def test_open_mpi_5_needs_a_coordinator():
    new = {key: value for key, value in MPI.items() if "orte" not in key}
    with pytest.raises(UserError, match="FEEDSEG_COORDINATOR must be set"):
        find(new)
    assert find(new | {"FEEDSEG_COORDINATOR": "a:7"}).coordinator == "a:7"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"},  # a shell of sbatch
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_ARRAY_TASK_ID": "3"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        STEP | {"FEEDSEG_PROCESSES": "1"},
    ],
)
def test_one_process_is_alone(environ):
    assert find(environ) is None


def test_plain_variables_in_both_spellings():
    assert find(PLAIN) == find(PLAIN | STEP)._replace(devices=None) == ProcessPlace("a:70", 2, 1)
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    assert find(dict(zip(names, PLAIN.values(), strict=True))) == ProcessPlace("a:70", 2, 1)
    assert find(STEP | {"JAX_COORDINATOR_ADDRESS": "h:9"}).coordinator == "h:9"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"FEEDSEG_COORDINATOR": ""}, "FEEDSEG_COORDINATOR must be set"),
        ({"FEEDSEG_PROCESS": ""}, "FEEDSEG_PROCESS must be set"),
        ({"FEEDSEG_PROCESSES": ""}, "not FEEDSEG_PROCESSES"),
        ({"FEEDSEG_PROCESS": "2"}, "FEEDSEG_PROCESS=2: 0 to 1"),
        ({"FEEDSEG_PROCESS": "one"}, "'one' is not a number"),
        ({"FEEDSEG_COORDINATOR": "host"}, "host:port"),
        ({"FEEDSEG_COORDINATOR": "host:99999"}, "host:port"),
    ],
)
def test_incomplete_or_wrong_variables_are_named(change, problem):
    with pytest.raises(UserError, match=problem):
        find(PLAIN | change)
