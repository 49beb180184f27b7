"""A sweep on a real SLURM of two nodes: what SLURM does to its runs leaves their bits alone."""

import hashlib
import importlib.util
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from feedseg import main
from feedseg.experiments import trials
from feedseg.runs.checkpoint import read_tree, saved_steps
from feedseg.runs.directory import read_json
from feedseg.training import result as finish
from launch.task import log_folder, log_path
from tests.support import held, slurm_cluster, tiny
from tests.support.slurm_cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing()),
]

HELD = str(Path(held.__file__))
SMALL = ("train.save_every_epochs=1",)
JOB = ("--time=10", "--mem=500M")
PATIENCE_S = 120


def task(folder: Path, seed: int) -> trials.Task:
    return (trials.Trial(HELD, (*SMALL, f"seed={seed}"), folder / f"seed{seed}"),)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The same runs, made here one after the other."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "draw", lambda *_: None)
        for seed in range(4):
            (trial,) = task(folder, seed)
            assert main.guarded(main.train, trial.arguments()) == 0
    return folder


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as made:
        yield made


class Sweep:
    """A file of runs in a folder of its own, and the commands that take it."""

    def __init__(self, folder: Path, cluster: Cluster, seeds, hold: bool = False):
        self.folder, self.cluster, self.file = folder, cluster, folder / "sweep.json"
        self.tasks = [task(folder, seed) for seed in seeds]
        trials.write_plan(self.file, self.tasks)
        if hold:
            (folder / "hold").touch()

    def __call__(self, module: str, *arguments: str) -> str:
        """Output of `python -m launch.MODULE FILE ARGUMENTS`."""
        ended = subprocess.run(
            [sys.executable, "-m", f"launch.{module}", str(self.file), *arguments],
            capture_output=True,
            text=True,
            cwd=tiny.ROOT,
            env=self.cluster.environment | {"FEEDSEG_TEST_FOLDER": str(self.folder)},
        )
        assert ended.returncode in (0, 75), ended.stdout + ended.stderr
        return ended.stdout

    def submit(self, *arguments: str, by: str = "slurm") -> str:
        """Number of the array."""
        said = self(by, *JOB, *arguments)
        return said.partition("as job ")[2].partition(";")[0]

    def wait(self, name: str) -> None:
        wait_for((self.folder / name).exists, PATIENCE_S, self.story)

    def story(self) -> str:
        """What all logs say, for a test that fails."""
        logs = sorted(log_folder(self.file).glob("*.txt"))
        texts = [f"--- {log.name}\n{log.read_text()[-1500:]}" for log in logs]
        queue = self.cluster.run("squeue", "-o", "%i %T %r %N")
        return "\n".join([*texts, queue, self.cluster.logs()])

    def log(self, index: int) -> str:
        return log_path(self.file, index, self.tasks[index]).read_text()


def bits(run: Path) -> dict:
    """All that a run has computed: its epochs, its result, hashes of its newest arrays."""
    result = {**read_json(run / "result.json"), "seconds": 0}
    found = {"rows": (run / "metrics.jsonl").read_bytes(), "result": result}
    for folder in ("checkpoints", "best"):
        leaves = jax.tree_util.tree_leaves_with_path(read_tree(run / folder)[0])
        found[f"{folder} steps"] = saved_steps(run / folder)
        found[folder] = {
            jax.tree_util.keystr(path): hashlib.sha256(leaf.tobytes()).hexdigest()
            for path, leaf in leaves
        }
    return found


# An array -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def array(cluster, tmp_path_factory) -> Sweep:
    """Four runs as an array with a collecting job, ended."""
    made = Sweep(tmp_path_factory.mktemp("array"), cluster, range(4))
    command = f"{sys.executable} -m launch.status {made.file} > {made.folder}/collected"
    made.submit("--cpus=1", f"--collect={command}; touch {made.folder}/end")
    made.wait("end")
    return made


def test_every_task_of_an_array_has_a_gpu_of_its_own(array):
    notes = [(array.folder / f"gpu-{index}").read_text() for index in range(4)]
    assert sorted(notes) == ["n0 0", "n0 1", "n1 0", "n1 1"]


def test_results_of_an_array_are_those_of_local_runs(array, local):
    for seed in range(4):
        assert bits(array.folder / f"seed{seed}") == bits(local / f"seed{seed}"), array.log(seed)


def test_the_collecting_job_runs_when_all_have_ended(array):
    text = (array.folder / "collected").read_text()
    assert text.splitlines()[-1] == "4 runs: 4 done"


def test_what_is_done_is_not_submitted_again(array):
    assert array("slurm", *JOB) == "4 of 4 tasks are done\n"
    (array.folder / "seed2" / "result.json").rename(array.folder / "kept")
    try:
        assert "#SBATCH --array=2\n" in array("slurm", *JOB, "--dry-run")
    finally:
        (array.folder / "kept").rename(array.folder / "seed2" / "result.json")


# Interrupted --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(array, cluster, tmp_path_factory) -> Sweep:
    """Two runs in their middle: the first is told to stop, the node of the second loses power."""
    made = Sweep(tmp_path_factory.mktemp("interrupted"), cluster, range(2), hold=True)
    job = made.submit("--cpus=2")
    for index in range(2):
        made.wait(f"reached-{index}")
        made.wait(f"seed{index}/checkpoints/{tiny.STEPS_PER_EPOCH}")  # written in the background
    node = cluster.job(f"{job}_1")["NodeList"]
    cluster.run("scancel", "--signal=TERM", f"{job}_0")
    cluster.power_off(node)
    wait_for(lambda: "run again" in made.log(0), PATIENCE_S, made.story)
    (made.folder / "hold").unlink()
    for index in range(2):
        made.wait(f"seed{index}/result.json")
    cluster.power_on(node)
    made.lost = node
    return made


def test_a_run_that_is_told_to_stop_goes_back_into_the_queue_and_continues(interrupted, local):
    assert f"stopped by SIGTERM at step {held.AT}" in interrupted.log(0)
    assert f"continuing at step {held.AT} of {tiny.STEPS}" in interrupted.log(0)
    assert bits(interrupted.folder / "seed0") == bits(local / "seed0")


def test_a_run_whose_node_loses_power_continues_on_another(interrupted, local):
    node = (interrupted.folder / "gpu-1").read_text().split()[0]
    assert node in slurm_cluster.NODES and node != interrupted.lost
    assert f"continuing at step {tiny.STEPS_PER_EPOCH} of" in interrupted.log(1)
    assert bits(interrupted.folder / "seed1") == bits(local / "seed1")


def test_a_cancelled_run_is_saved_and_does_not_come_back(interrupted, cluster, tmp_path):
    made = Sweep(tmp_path, cluster, [0], hold=True)
    job = made.submit("--cpus=1")
    made.wait("reached-0")
    cluster.run("scancel", job)
    wait_for(lambda: cluster.job(f"{job}_0").get("EndTime"), PATIENCE_S, made.story)
    wait_for(lambda: not cluster.run("squeue", "-h", "-j", job), PATIENCE_S, made.story)
    assert cluster.job(f"{job}_0")["JobState"] == "CANCELLED"
    assert saved_steps(made.folder / "seed0" / "checkpoints")[-1] == held.AT


@pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit is not installed"
)
def test_submitit_runs_the_same_and_comes_back_when_told_to_stop(
    interrupted, cluster, local, tmp_path
):
    made = Sweep(tmp_path, cluster, [0], hold=True)
    job = made.submit("--cpus=1", by="submit")
    made.wait("reached-0")
    cluster.run("scancel", "--signal=TERM", job)
    wait_for(lambda: "run again" in made.log(0), PATIENCE_S, made.story)
    (tmp_path / "hold").unlink()
    made.wait("seed0/result.json")
    assert f"continuing at step {held.AT}" in made.log(0)
    assert bits(made.folder / "seed0") == bits(local / "seed0")
    assert stat.S_IMODE((log_folder(made.file) / "submitit").stat().st_mode) == 0o700
