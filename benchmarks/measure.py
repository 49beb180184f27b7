"""What the comparisons share: times in turns, memory, what the device can do, the line printed.

Every case is one JSON line. A ratio is PyTorch's time / feedseg's: above 1 feedseg is faster.
"""

import functools
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too

import jax
import jax.numpy as jnp

try:
    import torch
except ImportError:
    torch = None  # a comparison needs it, feedseg's own side does not

WARM_UPS = 2
MIB = 2**20


def require_torch() -> None:
    """Ends the process where PyTorch is missing."""
    if torch is None:
        sys.exit('the comparisons need PyTorch: pip install -e ".[bench]"')


def torch_device() -> "torch.device":
    """The GPU if JAX computes on one too, else the CPU."""
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit("JAX computes on a GPU and PyTorch sees none: install its build for CUDA")
    return torch.device("cuda")


def synchronize() -> None:
    """Wait for PyTorch's GPU."""
    if torch_device().type == "cuda":
        torch.cuda.synchronize()


# Times ------------------------------------------------------------------------------------------


def seconds(action: Callable[[], object]) -> float:
    """Time of one call; the action itself waits for its result."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def in_turns(
    actions: dict[str, Callable[[], object]], repeats: int, warm_ups: int = WARM_UPS
) -> dict[str, float]:
    """Median seconds of each action, all in turns, the order reversed every time.

    A turn is a call that is not timed and one that is, as in a loop a step follows its like. It
    matters on virtual machines: memory that a library gave back is taken by the host while the
    other one runs, and fetching it again is not what a step costs.
    """
    for action in actions.values():
        for _ in range(warm_ups):
            action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(repeats):
        for name in list(actions)[:: 1 if repeat % 2 == 0 else -1]:
            actions[name]()
            times[name].append(seconds(actions[name]))
    return {name: statistics.median(values) for name, values in times.items()}


# Memory -----------------------------------------------------------------------------------------


def _status(key: str) -> int | None:
    """A size from /proc/self/status, bytes; None where there is no such file."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"{key}:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def torch_peak_mib(action: Callable[[], object]) -> float | None:
    """What one call needs at once beside what is there before it, MiB.

    On a GPU by PyTorch's own account, on the CPU the highest resident size (Linux, else None).
    """
    if torch_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    return resident_peak_mib(action)


def resident_peak_mib(action: Callable[[], object]) -> float | None:
    """Growth of the highest resident size during a call, MiB (Linux, else None)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        action()
        return None
    before = _status("VmRSS")
    action()
    peak = _status("VmHWM")
    return None if before is None or peak is None else (peak - before) / MIB


def program_mib(compiled) -> float:
    """What a compiled program needs beside its arguments, as the compiler reports it, MiB."""
    memory = compiled.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (memory.temp_size_in_bytes + own) / MIB


# What the device can do -------------------------------------------------------------------------


PRECISIONS = {  # of a matrix product: the arrays' type, and how JAX and PyTorch are told
    "float32": ("float32", "highest", "highest"),
    "tf32": ("float32", "tensorfloat32", "high"),
    "bfloat16": ("bfloat16", "default", "highest"),
}


@functools.cache
def limits(
    precision: str = "float32",
    matrix: int | None = None,
    copied_mib: int | None = None,
    repeats: int = 5,
) -> dict:
    """Highest FLOP/s of a matrix product and bytes/s of a copy, by the better library.

    precision: a key of PRECISIONS; matrix: side of the square matrices; copied_mib: size of the
    float32 array copied, read and written.
    """
    cpu = jax.default_backend() == "cpu"
    matrix = matrix or (2048 if cpu else 8192)
    copied = (copied_mib or (256 if cpu else 2048)) * MIB
    dtype, jax_precision, torch_precision = PRECISIONS[precision]
    a = jax.random.normal(jax.random.key(0), (matrix, matrix), dtype)
    x = jax.random.normal(jax.random.key(1), (copied // 4,))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax_precision))
    copy = jax.jit(lambda x: -x)
    actions = {
        "jax product": lambda: product(a).block_until_ready(),
        "jax copy": lambda: copy(x).block_until_ready(),
    }
    if torch is not None:
        torch.set_float32_matmul_precision(torch_precision)
        b = torch.randn(a.shape, device=torch_device(), dtype=getattr(torch, dtype))
        y = torch.randn(x.shape, device=torch_device())

        def on_torch(action):
            def run():
                action()
                synchronize()

            return run

        actions["torch product"] = on_torch(lambda: b @ b)
        actions["torch copy"] = on_torch(y.clone)
    found = in_turns(actions, repeats)

    def best(kind: str) -> float:
        return min(time for name, time in found.items() if name.endswith(kind))

    return {
        "peak_flop_per_s": 2 * matrix**3 / best("product"),
        "peak_bytes_per_s": 2 * copied / best("copy"),
    }


# What is printed --------------------------------------------------------------------------------


def load_average() -> float | None:
    """Processes at work in the last minute, where the system says so."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        found = re.search(r"model name\s*:\s*(.+)", listing.read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def machine() -> dict:
    """What the times depend on."""
    cpu = jax.default_backend() == "cpu"
    return {
        "device": processor() if cpu else jax.devices()[0].device_kind,
        "cores": cores(),
        "torch_threads": torch and torch.get_num_threads(),
        "load_before": LOAD_BEFORE,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch and torch.__version__,
    }


LOAD_BEFORE = load_average()  # before this process did anything


def rounded(value):
    """Numbers with five significant digits, within dicts and lists too."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


class Lines:
    """Prints every case as one JSON line, and keeps them in a file if there is one.

    In the file a case takes the place of an older one with the same values of `keys`, so that cases
    can be measured one by one.
    """

    def __init__(self, path: Path | None, keys: tuple[str, ...]):
        self._path, self._keys = path, keys

    def __call__(self, **case) -> None:
        case = rounded(case)
        print(json.dumps(case), flush=True)
        if self._path:
            self._keep(case)

    def _keep(self, case: dict) -> None:
        from feedseg.runtime.files import write_json_atomic

        cases = json.loads(self._path.read_text()) if self._path.exists() else []
        same = [each for each in cases if all(each.get(k) == case.get(k) for k in self._keys)]
        place = cases.index(same[0]) if same else len(cases)
        cases[place : place + len(same)] = [case]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._path, cases)
