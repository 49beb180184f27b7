"""A real SLURM of two nodes on this machine, for tests: no root, no network, nothing in /etc.

Each node is a slurmd of its own with two fake GPUs, which are links to /dev/null. Everything lies
in one temporary folder. Whoever can reach the port may submit jobs (auth/none): for throw-away
machines.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from getpass import getuser
from pathlib import Path

NODES = ("n0", "n1")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_NEEDED = ("slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scontrol", "scancel", "sinfo")

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=10000
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
PlugStackConfig=/dev/null
ReturnToService=2
KillWait=5
MinJobAge=300
InactiveLimit=0
SlurmctldTimeout=10
SlurmdTimeout=30
JobRequeue=1
GresTypes=gpu
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
PartitionName=main Nodes=n[0-1] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 "
    "State=UNKNOWN Gres=gpu:2\n"
)


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    absent = [name for name in _NEEDED if name != "slurmstepd" and not _which(name)]
    return f"no {absent[0]}: install the package slurm-wlm" if absent else ""


def _which(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


class Cluster:
    """The cluster, as a context. `environment` is what the commands of SLURM need."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(self.root / "slurm.conf"),
            "PATH": _PATH,
        }
        self._daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        try:
            self._configure()
            self._start("slurmctld", "slurmctld", "-D", "-i")
            for name in NODES:
                self.power_on(name)
            wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t") == "2 idle", 30, self.logs)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        """End all daemons and all that they started, however far the start has come."""
        for name in NODES:
            self.power_off(name, tell=False)
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str) -> str:
        """Output of a command of SLURM; empty while the controller does not answer."""
        ended = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=60
        )
        return ended.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What the controller knows of a job or of an element of an array."""
        fields = self.run("scontrol", "-o", "show", "job", job).split()
        return dict(field.partition("=")[::2] for field in fields if "=" in field)

    def power_on(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)

    def power_off(self, node: str, tell: bool = True) -> None:
        """Kill the node's daemon and all that runs on it. tell: the controller learns of it now."""
        if daemon := self._daemons.pop(node, None):
            daemon.kill()
            daemon.wait()
        for pid in self._processes(node):
            _kill(pid)
        if tell:
            self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            f"--- {p.name}\n{p.read_text('utf-8', 'replace')[-1500:]}"
            for p in self.root.glob("*.log")
        )

    def _configure(self) -> None:
        host, ports = socket.gethostname().split(".")[0], _free_ports(3)
        conf = _CONF.format(host=host, ports=ports, user=getuser(), root=self.root)
        gres = ""
        for name, port in zip(NODES, ports[1:], strict=True):
            conf += _NODE.format(name=name, host=host, port=port)
            gpus = [self.root / f"{name}.gpu{index}" for index in range(2)]
            for gpu in gpus:
                gpu.symlink_to("/dev/null")  # SLURM wants a device
            gres += "".join(f"NodeName={name} Name=gpu File={gpu}\n" for gpu in gpus)
        version = subprocess.run(
            [_which("slurmctld"), "-V"], capture_output=True, text=True
        ).stdout.split()[-1]
        new = int(version.split(".")[0]) >= 23
        cgroup = "CgroupPlugin=disabled" if new else "CgroupAutomount=no"
        (self.root / "state").mkdir()
        for name, text in (("slurm", conf), ("gres", gres), ("cgroup", cgroup + "\n")):
            (self.root / f"{name}.conf").write_text(text)

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self.root / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [_which(program), *arguments, "-f", self.environment["SLURM_CONF"]],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )

    def _processes(self, node: str) -> list[int]:
        """Jobs on a node and the daemons that look after them, which are first."""
        jobs, keepers = [], []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and self._is_of(folder, node):
                jobs.append(int(folder.name))
                parent = _parent(folder)
                if _name(parent) == "slurmstepd":
                    keepers.append(parent)
        return list(dict.fromkeys(keepers + jobs))

    def _is_of(self, folder: Path, node: str) -> bool:
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            return False
        conf = f"SLURM_CONF={self.root}/slurm.conf".encode()
        return conf in environment and f"SLURMD_NODENAME={node}".encode() in environment


def wait_for(
    condition: Callable[[], object], timeout_s: float, why: Callable[[], str] = lambda: ""
) -> None:
    """Returns when the condition holds; fails after `timeout_s` seconds with the text of `why`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s\n{why()}"
        time.sleep(0.1)


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
