"""Whether this process is one of several and which, by the environment that its launcher makes."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from feedseg.runtime.errors import UserError

ALONE = "to run one process alone set FEEDSEG_PROCESSES=1"
_PLAIN = {
    "coordinator": ("FEEDSEG_COORDINATOR", "JAX_COORDINATOR_ADDRESS"),
    "processes": ("FEEDSEG_PROCESSES", "JAX_NUM_PROCESSES"),
    "process": ("FEEDSEG_PROCESS", "JAX_PROCESS_ID"),
}


class ProcessPlace(NamedTuple):
    """Where a process stands among the others.

    coordinator: host:port of process 0. devices: which of the visible GPUs are this process's
    own, None: all of them.
    """

    coordinator: str
    processes: int
    process: int
    devices: tuple[int, ...] | None = None


def find(environ: Mapping[str, str]) -> ProcessPlace | None:
    """The place of this process by its environment; None: it runs alone.

    Open MPI's variables come before SLURM's, which mpirun inherits from the job around it, and
    SLURM's count only within srun. FEEDSEG_COORDINATOR (host:port), FEEDSEG_PROCESSES and
    FEEDSEG_PROCESS, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, come before
    both. Raises UserError if something is missing or wrong.
    """
    given = _plain(environ)
    count = given.get("processes", _count(environ))
    if count is None and given:
        raise UserError(f"{_names(given)} is set, but not FEEDSEG_PROCESSES; {ALONE}")
    if count is None or count < 2:
        return None
    launched = {} if len(given) == 3 else _open_mpi(environ) or _slurm(environ)
    values = {"processes": count, **launched, **given}
    if missing := [_PLAIN[key][0] for key in ("coordinator", "process") if key not in values]:
        raise UserError(
            f"this is one of {count} processes, but {' and '.join(missing)} must be set too; "
            + ALONE
        )
    if not 0 <= values["process"] < count:
        raise UserError(f"FEEDSEG_PROCESS={values['process']}: 0 to {count - 1} of {count}")
    return ProcessPlace(devices=_devices(environ), **values)


def _plain(environ: Mapping[str, str]) -> dict:
    """What the plain variables say."""
    found = {}
    for key, names in _PLAIN.items():
        name = next((name for name in names if environ.get(name)), None)
        if name and key == "coordinator":
            found[key] = _address(name, environ[name])
        elif name:
            found[key] = _number(environ, name)
    return found


def _names(given: dict) -> str:
    return " and ".join(_PLAIN[key][0] for key in given)


def _number(environ: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(r"\d{1,6}", environ[name]):
        raise UserError(f"{name}={environ[name]!r} is not a number")
    return int(environ[name])


def _address(name: str, text: str) -> str:
    if (
        not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[^\s\]]+\]:\d{1,5}", text)
        or not 0 < port(text) < 65536
    ):
        raise UserError(f"{name}={text!r}: the host of process 0 and a free port, host:port")
    return text


def port(address: str) -> int:
    """The port of host:port."""
    return int(address.rpartition(":")[2])


def _count(environ: Mapping[str, str]) -> int | None:
    """Number of processes by the launcher; SLURM_NTASKS also counts in a shell of sbatch."""
    for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if environ.get(name):
            return _number(environ, name)
    return None


def _open_mpi(environ: Mapping[str, str]) -> dict:
    """Rank and coordinator under mpirun, empty without it; Open MPI 5 does not say the latter."""
    if not environ.get("OMPI_COMM_WORLD_RANK"):
        return {}
    found = {"process": _number(environ, "OMPI_COMM_WORLD_RANK")}
    pattern = r"(\d+)\.\d+;tcp6?://(?:\[([^,\]]+)|([^,:]+))"
    if launcher := re.match(pattern, environ.get("OMPI_MCA_orte_hnp_uri", "")):
        job, six, four = launcher.groups()
        host = f"[{six}]" if six else four
        found["coordinator"] = f"{host}:{_ephemeral(int(job) // 4096)}"
    return found


def _slurm(environ: Mapping[str, str]) -> dict:
    """Rank and coordinator under srun, empty without it: the first node of the step."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID")
    if not all(environ.get(name) for name in names):
        return {}
    job, nodes, rank = (environ[name] for name in names)
    first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    step = environ.get("SLURM_STEP_ID", "0")
    port = _ephemeral(int(job) + 509 * int(step))  # two steps of a job do not meet each other
    return {"process": int(rank), "coordinator": f"{first[1]}{first[2] or ''}:{port}"}


def _ephemeral(number: int) -> int:
    """One of the 4096 highest ports, which no service has for its own."""
    return 61440 + number % 4096


def _devices(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Which of the visible GPUs are this process's own; None: all.

    A process that shares its node takes its part of what is visible there, unless the launcher
    has shared the GPUs out already. Raises UserError if they cannot be shared out evenly.
    """
    here, local = _on_node(environ)
    if here < 2 or environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return (local,)
    count = len([name for name in visible.split(",") if name])
    on_node = _number(environ, "SLURM_GPUS_ON_NODE") if environ.get("SLURM_GPUS_ON_NODE") else 0
    if count < 2 or count < on_node or environ.get("SLURM_GPUS_PER_TASK"):
        return None  # none, or those that this process was given
    if count % here:
        raise UserError(
            f"{here} processes on this machine cannot share the {count} GPUs of "
            f"CUDA_VISIBLE_DEVICES={visible} evenly; start another number of processes"
        )
    share = count // here
    return tuple(range(local * share, (local + 1) * share))


def _on_node(environ: Mapping[str, str]) -> tuple[int, int]:
    """Number of processes on this machine, and which of them this is."""
    if environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"):
        names = ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
        return tuple(_number(environ, name) for name in names)
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE")
    if not per_node or not environ.get("SLURM_LOCALID"):
        return 1, 0
    counts = []  # "2(x3),1" is 2, 2, 2, 1
    for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", per_node):
        counts += [int(tasks)] * int(times or 1)
    node = int(environ.get("SLURM_NODEID") or 0)
    return counts[min(node, len(counts) - 1)], int(environ["SLURM_LOCALID"])
