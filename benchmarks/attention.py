"""Exact attention over all pixels against PyTorch's scaled_dot_product_attention.

    python benchmarks/attention.py --output results/benchmarks/attention.json
    python benchmarks/attention.py --side 128 --channels 8

One image of SIDE x SIDE px, C channels: queries and keys have C / 8, values C / 2, no 1/sqrt(d), as
in the feedback attention network. Forward, and forward + gradients by all three. PyTorch gets
queries, keys and values filled up with zeros to one depth, as its fused kernel wants (without that
it builds the matrix of all weights). Every case runs in a process of its own, the two libraries in
turn; memory is the highest resident size minus that with the inputs in place before the first call
(compilation counts), on a GPU what each library's allocator held at most beyond the inputs. Needs
the extra `bench` (torch).
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LIBRARIES = ("feedseg", "torch")
MODES = ("forward", "gradient")


def inputs(side: int, channels: int) -> list[np.ndarray]:
    """Query, key, value as behind a normalization: unit variance."""
    rng = np.random.default_rng(0)
    depths = (max(1, channels // 8), max(1, channels // 8), max(1, channels // 2))
    return [rng.normal(size=(1, side * side, depth)).astype(np.float32) for depth in depths]


def feedseg_program(mode: str):
    """The jitted function of query, key and value."""
    import jax
    import jax.numpy as jnp

    from feedseg import models
    from feedseg.models.feedback import attention as attentions

    block = models.defaults("feedback_attention")["query_block"]
    attention = functools.partial(attentions.attention, query_block=block)
    return {
        "forward": jax.jit(attention),
        "gradient": jax.jit(
            jax.value_and_grad(lambda *a: jnp.sum(attention(*a) ** 2), argnums=(0, 1, 2))
        ),
    }[mode]


def feedseg_call(arrays, mode: str):
    import jax
    import jax.numpy as jnp

    arrays = [jnp.asarray(array) for array in arrays]
    run = feedseg_program(mode)
    return lambda: jax.block_until_ready(run(*arrays))


def torch_call(arrays, mode: str, dtype: str = "float32"):
    """PyTorch's fused attention; its flash kernel takes depths that are multiples of 8."""
    import torch
    import torch.nn.functional as functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    multiple = 8 if device == "cuda" else 1
    depth = -(-max(array.shape[-1] for array in arrays) // multiple) * multiple
    padded = [np.pad(a, ((0, 0), (0, 0), (0, depth - a.shape[-1]))) for a in arrays]
    tensors = [torch.from_numpy(a)[None].to(device, getattr(torch, dtype)) for a in padded]
    tensors = [tensor.requires_grad_(mode == "gradient") for tensor in tensors]

    def run():
        out = functional.scaled_dot_product_attention(*tensors, scale=1.0)
        if mode == "gradient":
            out = torch.autograd.grad((out**2).sum(), tensors)
        if device == "cuda":
            torch.cuda.synchronize()
        return out

    return run


def resident_kib() -> int:
    """Resident size now, KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def gpu_bytes(library: str, key: str) -> int | None:
    """What the library's allocator holds, or held at most, on the GPU; None without one."""
    if library == "torch":
        import torch

        held = {"now": torch.cuda.memory_allocated, "peak": torch.cuda.max_memory_allocated}
        return held[key]() if torch.cuda.is_available() else None
    import jax

    held = jax.devices()[0].memory_stats() or {}
    return held.get({"now": "bytes_in_use", "peak": "peak_bytes_in_use"}[key])


def child(library: str, mode: str, side: int, channels: int, repeats: int) -> None:
    """Measures one case and prints it as JSON."""
    call = {"feedseg": feedseg_call, "torch": torch_call}[library](inputs(side, channels), mode)
    before, gpu_before = resident_kib(), gpu_bytes(library, "now")
    begun = time.perf_counter()
    call()
    first = time.perf_counter() - begun
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    if gpu_before is None:
        peak_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    else:
        peak_mib = (gpu_bytes(library, "peak") - gpu_before) / 2**20
    print(json.dumps(dict(first_s=first, seconds=seconds, peak_mib=peak_mib)))


def measure(library: str, mode: str, side: int, channels: int, repeats: int) -> dict:
    arguments = [library, mode, str(side), str(channels), str(repeats)]
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:] or done.returncode}
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"median_s": statistics.median(found["seconds"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="image side, px")
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        library, mode, *numbers = options.child
        child(library, mode, *map(int, numbers))
        return
    cases = []
    for channels in options.channels:
        for mode in MODES:
            case = {"side": options.side, "channels": channels, "mode": mode}
            for library in LIBRARIES:
                case[library] = measure(library, mode, options.side, channels, options.repeats)
            times = [case[library].get("median_s") for library in LIBRARIES]
            case["ratio"] = times[1] / times[0] if all(times) else None
            print(json.dumps(case), flush=True)
            cases.append(case)
    if options.output:
        options.output.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
