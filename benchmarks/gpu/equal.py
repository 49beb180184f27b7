"""Equal results: logits on the CPU and the device, attention beside a dense form, tests.

All products are in float32 (`jax_default_matmul_precision=highest`). An error is relative: the
largest difference over the largest number, or over 1 where all are smaller.
"""

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from benchmarks.attention import inputs
from benchmarks.gpu.recorder import Recorder
from benchmarks.sides import plausible_variables
from configs import common
from feedseg import models
from feedseg.models.feedback import attention as attentions

MOST = 1e-4
CLASSES = 4
_NETWORKS_SHARE = 0.75  # of the time, for the networks' logits
_TOYS = ("unet",)
_TESTS = ("layers", "attention", "conv", "convlstm", "round_norm", "batch_norm")
_QUICK = {  # compile quickly what runs once
    "cpu": {"xla_backend_optimization_level": 1},
    "gpu": {"xla_gpu_autotune_level": 0},
}


def measure_all(recorder: Recorder) -> None:
    jax.config.update("jax_default_matmul_precision", "highest")
    names = models.names()
    if recorder.dry:
        others = [name for name in names if name not in _TOYS]
        recorder.leave_out(", ".join(others), "toy size: their own tests compile them")
        names = [name for name in names if name in _TOYS]
    _networks(recorder, names)
    side = 16 if recorder.dry else 64
    for channels in (8, 64):
        case = f"attention {side} x {side} px, {channels} channels, all queries"
        recorder.measure(case, lambda c=channels: _attention(side, c, side**2), least_s=3)
    large = 64 if recorder.dry else 256
    for channels in (8, 64):
        case = f"attention {large} x {large} px, {channels} channels, {side**2} queries"
        recorder.measure(case, lambda c=channels: _attention(large, c, side**2), least_s=5)
    recorder.measure("tests", lambda: _tests(recorder), least_s=10)


def _networks(recorder: Recorder, names: list[str]) -> None:
    """Logits of every network, compiled side by side; each is kept as soon as it is there."""
    pool = ThreadPoolExecutor(2 if recorder.dry else max(1, measure.cores() - 2))
    pending: dict[Future, str] = {pool.submit(_logits, name): name for name in names}
    try:
        for future in as_completed(list(pending), _NETWORKS_SHARE * recorder.left()):
            recorder.measure(pending.pop(future), future.result)
    except TimeoutError:
        for name in pending.values():
            recorder.leave_out(name, "not compiled in time")
    pool.shutdown(wait=False, cancel_futures=True)


def _logits(name: str) -> dict:
    """Logits of a network with equal weights and image on both devices."""
    model = models.build(CLASSES, common.model(name))
    side = 2 * model.stride if model.stride > 16 else 64
    image = np.random.default_rng(1).random((1, side, side, 1), np.float32)
    variables = plausible_variables(model, image.shape)
    results = []
    for device in (jax.devices("cpu")[0], jax.devices()[0]):
        options = _QUICK.get(device.platform)
        forward = jax.jit(lambda v, x: models.forward(model, v, x)[0], compiler_options=options)
        placed = jax.device_put((variables, image), device)
        results.append(np.asarray(forward(*placed)))
    return {"side": side, **_compared(*results)}


def _compared(expected: np.ndarray, found: np.ndarray) -> dict:
    error = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    return {
        "error_of_largest": error,
        "largest": float(np.abs(expected).max()),
        "equal": bool(error <= MOST),  # false for NaN too
    }


def _attention(side: int, channels: int, queries: int) -> dict:
    """Some queries of an image, beside softmax(q k^T) v in float64."""
    q, k, v = inputs(side, channels)
    block = models.defaults("feedback_attention")["query_block"]
    run = jax.jit(lambda *a: attentions.attention(*a, block))
    chosen = np.linspace(0, side**2 - 1, queries).astype(int)
    found = np.asarray(run(*map(jnp.asarray, (q, k, v))))[0, chosen]
    expected = np.concatenate(
        [_dense(q[0, some], k[0], v[0]) for some in np.array_split(chosen, 16)]
    )
    return _compared(expected, found)


def _dense(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k, v = (each.astype(np.float64) for each in (q, k, v))
    scores = q @ k.T
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights @ v / weights.sum(-1, keepdims=True)


def _tests(recorder: Recorder) -> dict:
    """The tests of the step and the layers on this device, as far as the time goes."""
    root = Path(__file__).parents[2]
    names = ("round_norm",) if recorder.dry else _TESTS
    files = [str(Path("tests", "models", f"test_{name}.py")) for name in names]
    files += [] if recorder.dry else [str(Path("tests", "training", "test_step.py"))]
    platforms = "cpu" if jax.default_backend() == "cpu" else "cuda,cpu"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": platforms,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    workers = "0" if recorder.dry else str(min(6, measure.cores()))
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--tb=line", *files],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=max(1.0, recorder.left()),
    )
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"files": files, "exit_code": done.returncode, "last": lines[-1:], "failed": failed[:20]}
