"""Facts of the device: what it is, what runs on it, the peaks that shares are taken of."""

import importlib.metadata
import subprocess

from benchmarks import measure
from benchmarks.gpu.recorder import Recorder

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "triton")
_QUERY = "name,driver_version,memory.total,clocks.max.sm,power.limit"
TOY = dict(matrix=128, copied_mib=1, repeats=1)


def measure_all(recorder: Recorder) -> None:
    recorder.facts(versions=_versions(), driver=_driver())
    for precision in measure.PRECISIONS:
        arguments = TOY if recorder.dry else dict(repeats=9)

        def peaks(precision=precision, arguments=arguments) -> dict:
            return measure.limits(precision, **arguments)

        recorder.measure(precision, peaks, least_s=5)


def _versions() -> dict[str, str | None]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if measure.torch is not None:
        found["cuda of torch"] = measure.torch.version.cuda
    return found


def _driver() -> str:
    """Name, driver, memory and limits as nvidia-smi has them; empty without it."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
