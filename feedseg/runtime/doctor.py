"""`feedseg doctor`: whether the installation works, what it runs on, and how to fix what does not.

Every check returns findings; nothing here raises for what it is meant to report.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.runtime import console
from feedseg.runtime import memory as machine
from feedseg.runtime.errors import one_line

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tifffile")
CUDA13_DRIVER = 580  # oldest NVIDIA driver series for CUDA 13
LITTLE_DISK = 2 * 2**30  # bytes
MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


class Finding(NamedTuple):
    """One line of the report."""

    kind: str  # ok | note (usable, could be better) | bad (not usable)
    what: str
    text: str
    remedy: str = ""


def doctor() -> int:
    """Prints what was found; 0 if feedseg can run here, 2 otherwise."""
    findings = []
    for look in (packages, devices, convolution, memory, disk, data_folder):
        for finding in _guarded(look):
            findings.append(finding)
            _print(finding)
    bad = [f for f in findings if f.kind == "bad"]
    notes = [f for f in findings if f.kind == "note"]
    console.say()
    if bad:
        console.say(f"Not usable yet: fix {', '.join(f.what for f in bad)} (see above).")
        return 2
    console.say(f"Usable{f', {len(notes)} note(s) above' if notes else ''}.")
    return 0


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Findings of one check; a check that fails itself is a finding too."""
    try:
        yield from look()
    except Exception as error:  # the purpose is to report whatever is wrong
        yield Finding("bad", look.__name__, one_line(error), "see the remedies above, then again")


def _print(finding: Finding) -> None:
    console.say(f"{MARKS[finding.kind]}  {finding.what:<18}{finding.text}")
    if finding.remedy:
        console.say(f"{'':24}-> {finding.remedy}")


# Packages


def packages() -> Iterator[Finding]:
    """Python and every required package: present, and new enough."""
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.platform()}")
    wanted = requirements()
    if not wanted:
        remedy = "in the folder of pyproject.toml: pip install -e ."
        yield Finding("note", "feedseg", "not installed, runs from its folder", remedy)
    for name in dict.fromkeys((*PACKAGES, *wanted)):
        finding = _package(name, wanted.get(name))
        if name in PACKAGES or finding.kind != "ok":
            yield finding


def requirements() -> dict:
    """Name -> packaging specifier of what feedseg requires; empty if it is not installed."""
    from packaging.requirements import Requirement

    try:
        listed = importlib.metadata.requires("feedseg") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    parsed = [Requirement(text) for text in listed]
    return {r.name: r.specifier for r in parsed if r.marker is None or r.marker.evaluate()}


def _package(name: str, specifier) -> Finding:
    asked = f"{name}{specifier or ''}"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("bad", name, "missing", f'pip install "{asked}"')
    if specifier is not None and not specifier.contains(version, prereleases=True):
        return Finding("bad", name, f"{version}, needs {specifier}", f'pip install -U "{asked}"')
    return Finding("ok", name, version)


# Devices


def devices() -> Iterator[Finding]:
    """What JAX runs on; a GPU that is there but not used."""
    cards = nvidia_cards()
    try:
        import jax

        found = jax.devices()
    except (ImportError, RuntimeError) as error:
        remedy = "unset JAX_PLATFORMS" if os.environ.get("JAX_PLATFORMS") else "pip install -U jax"
        yield Finding("bad", "jax", one_line(error), remedy)
        return
    kinds = sorted({device.device_kind for device in found})
    backend = jax.default_backend()
    yield Finding("ok", "devices", f"{len(found)} x {backend} ({', '.join(kinds)})")
    if backend == "cpu":
        yield from _cpu_only(cards)


def _cpu_only(cards: list[tuple[str, int]]) -> Iterator[Finding]:
    """Findings where JAX has no accelerator. cards: what `nvidia_cards` gave."""
    if not cards and not Path("/dev/nvidia0").exists():
        text = f"CPU with {os.cpu_count()} cores; this is fine, a GPU would be much faster"
        yield Finding("ok", "accelerator", text)
        return
    name, driver = cards[0] if cards else ("NVIDIA GPU", 0)
    asked = os.environ.get("JAX_PLATFORMS", "") or os.environ.get("JAX_PLATFORM_NAME", "")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "cpu" in asked:
        remedy = "unset JAX_PLATFORMS JAX_PLATFORM_NAME"
    elif hidden is not None and hidden in ("", "-1"):
        remedy = "unset CUDA_VISIBLE_DEVICES"
    else:
        extra = "cuda12" if 0 < driver < CUDA13_DRIVER else "cuda13"
        remedy = f'pip install -U "jax[{extra}]"'
    yield Finding("note", "accelerator", f"{name} is there, but JAX runs on the CPU", remedy)


def nvidia_cards() -> list[tuple[str, int]]:
    """(name, driver series) of every card that nvidia-smi lists; empty without it."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    cards = []
    for line in done.stdout.splitlines():
        name, _, driver = line.rpartition(", ")
        series = driver.split(".")[0]
        if name and series.isdigit():
            cards.append((name, int(series)))
    return cards


# Computing


def convolution() -> Iterator[Finding]:
    """A convolution against NumPy, then the time of a forward and backward pass."""
    import jax
    import jax.numpy as jnp

    def layer(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 12, 12, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    error = np.abs(np.asarray(layer(image, kernel)) - _reference(image, kernel)).max()
    if not error < 0.05:  # tensor cores round to about 1e-2 here
        remedy = "update the GPU driver, or run with JAX_PLATFORMS=cpu"
        yield Finding("bad", "convolution", f"wrong by {error:.2g} on this device", remedy)
        return

    @jax.jit
    def gradient(kernel, image):
        return jax.grad(lambda k: jnp.mean(jax.nn.relu(layer(image, k)) ** 2))(kernel)

    batch = jnp.asarray(rng.normal(size=(4, 256, 256, 16)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(3, 3, 16, 16)), jnp.float32)
    first, usual = _timed(lambda: jax.block_until_ready(gradient(weights, batch)))
    text = f"right; 3x3, 16 to 16 channels, 4 x 256 x 256 px, forward and backward: {usual:.1f} ms"
    yield Finding("ok", "convolution", f"{text} (first call {first / 1000:.1f} s)")


def _reference(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution written out: zeros around, 3x3 windows, sum over window and channels."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nyxchw,hwck->nyxk", windows, kernel)


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of the first call and of the fastest of five more."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times[0], min(times[1:])


# Memory and disk


def memory() -> Iterator[Finding]:
    """Memory of the machine and of the first device."""
    import jax

    total = machine.memory()
    if total:
        yield Finding("ok", "memory", f"{total / 2**30:.1f} GiB in this machine")
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        yield Finding("ok", "device memory", f"{limit / 2**30:.1f} GiB that JAX may use")


def disk() -> Iterator[Finding]:
    """Whether the current folder takes files, and how much fits."""
    here = Path.cwd()
    try:
        with tempfile.NamedTemporaryFile(dir=here) as file:
            file.write(b"feedseg")
            file.flush()
    except OSError as error:
        remedy = "change to a folder of yours or give --workdir"
        yield Finding("bad", "disk", f"{here} cannot be written ({error.strerror})", remedy)
        return
    free = shutil.disk_usage(here).free
    text = f"{free / 2**30:.1f} GiB free in {here}"
    if free < LITTLE_DISK:
        yield Finding("note", "disk", text, "free some space; checkpoints need it")
    else:
        yield Finding("ok", "disk", text)


def data_folder() -> Iterator[Finding]:
    """The folder of data sets, if FEEDSEG_DATA names one."""
    named = os.environ.get("FEEDSEG_DATA")
    if not named:
        text = "FEEDSEG_DATA is not set; runs need --config.data_dir, or the synthetic data"
        yield Finding("ok", "data", text)
    elif Path(named).is_dir():
        yield Finding("ok", "data", f"FEEDSEG_DATA={named}")
    else:
        remedy = "set FEEDSEG_DATA to the folder that holds the data sets"
        yield Finding("note", "data", f"FEEDSEG_DATA={named} is no folder", remedy)
