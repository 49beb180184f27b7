"""Attention over all pixels of one image beside PyTorch's fused kernels, time and memory."""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks import attention, measure
from benchmarks.gpu.recorder import Recorder

_REPEATS = 7


def measure_all(recorder: Recorder) -> None:
    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    side = 32 if recorder.dry else 256
    for dtype in ("float32", "bfloat16"):
        for channels in (8,) if recorder.dry else (8, 64):
            for mode in attention.MODES:
                name = f"{side**2} pixels, {channels} channels, {mode}, {dtype}"
                recorder.measure(name, partial(_compare, side, channels, mode, dtype), least_s=3)


def _compare(side: int, channels: int, mode: str, dtype: str) -> dict:
    arrays = attention.inputs(side, channels)
    own = [jnp.asarray(array, dtype) for array in arrays]
    program = attention.feedseg_program(mode).lower(*own).compile()
    actions = {"feedseg": lambda: jax.block_until_ready(program(*own))}
    memory, kernel = {"feedseg": measure.program_mib(program)}, None
    if measure.torch is not None:
        measure.torch.set_float32_matmul_precision("high")
        theirs = attention.torch_call(arrays, mode, dtype)
        kernel, actions["torch"] = _kernel(theirs)
        memory["torch"] = measure.torch_peak_mib(actions["torch"])
    seconds = measure.in_turns(actions, _REPEATS)
    ratio = seconds["torch"] / seconds["feedseg"] if "torch" in seconds else None
    facts = dict(pixels=side**2, channels=channels, mode=mode, dtype=dtype, torch_kernel=kernel)
    return measure.rounded({**facts, "seconds": seconds, "ratio": ratio, "peak_mib": memory})


def _kernel(action):
    """(name, action) of PyTorch's best kernel that takes these arrays: flash, efficient, any."""
    if measure.torch_device().type == "cpu":
        return "CPU", action
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):

        def run(backend=backend):
            with sdpa_kernel(backend):
                return action()

        try:
            run()
        except RuntimeError:  # no such kernel for this type or depth
            continue
        return backend.name, run
    return "any", action
