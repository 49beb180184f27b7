"""Parameters, forward time and memory of every variant of the feedback networks.

    python benchmarks/feedback_size.py --output results/benchmarks/feedback_size.json
    python benchmarks/feedback_size.py --only self code10

One image of 256 x 256 px (--side), evaluation mode, random weights. Parameters for 2, 3 and 4
classes, time (median of --repeats) and memory for 4. Memory is what the compiled program needs at
once beside the weights, as the compiler reports it.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from configs import common
from feedseg import models

LAYOUTS = ("none", "paper6_levels", "paper6_top", "code10", *"abcde", *"ABCDE", "abde", "ABDE")
KINDS = ("add", "conv1x1", "se", "light", "source_target", "self")
WIDE = dict(filters=(64, 128, 256, 512, 1024))
VARIANTS = {
    "U-Net": ("unet", {}),
    **{f"ConvLSTM {layout}": ("feedback_unet", dict(layout=layout)) for layout in LAYOUTS},
    "ConvLSTM paper6_levels, reset": ("feedback_unet", dict(carry_state=False)),
    **{
        f"{unit} {layout}": ("feedback_unet", dict(unit=unit, layout=layout))
        for unit in ("rcl_shared", "rcl_separate")
        for layout in ("paper6_levels", "code10")
    },
    **{f"attention {kind}": ("feedback_attention", dict(connection=kind)) for kind in KINDS},
    "attention light, 2 convolutions": (
        "feedback_attention",
        dict(connection="light", light_convs=2),
    ),
    "attention self, one_conv": ("feedback_attention", dict(location="one_conv")),
    "attention self, kv_pool 2": ("feedback_attention", dict(kv_pool=2)),
    **{
        f"attention {kind}, 64 wide": ("feedback_attention", dict(WIDE, connection=kind))
        for kind in KINDS
    },
    "ConvLSTM paper6_levels + self": ("feedback_unet", dict(connection="self")),
}


def build(name: str, changes: dict, classes: int):
    return models.build(classes, common.model(name, **changes))


def variables_of(model, image):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def measure(name: str, changes: dict, side: int, repeats: int) -> dict:
    """One variant."""
    small = jnp.zeros((1, 16, 16, 1))
    found = {
        f"parameters_{k}": count(variables_of(build(name, changes, k), small)["params"])
        for k in (2, 3, 4)
    }
    model = build(name, changes, 4)
    image = jax.random.uniform(jax.random.key(1), (1, side, side, 1))
    shapes = variables_of(model, image)
    variables = jax.tree.map(lambda x: 0.05 * jax.random.normal(jax.random.key(2), x.shape), shapes)
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    run = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
    compiled = run.lower(variables, image).compile()
    memory = compiled.memory_analysis()
    jax.block_until_ready(compiled(variables, image))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(variables, image))
        seconds.append(time.perf_counter() - begun)
    mib = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20
    return found | {
        "statistics": count(shapes["batch_stats"]),
        "forward_ms": 1000 * statistics.median(seconds),
        "memory_mib": mib,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="image side, px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the variants' names")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    rows = []
    print(f"{'':36s}{'parameters, 2, 3, 4 classes':>36s}{'forward':>11s}{'memory':>12s}")
    for label, (name, changes) in VARIANTS.items():
        if not any(part in label for part in options.only):
            continue
        row = {"variant": label, **measure(name, changes, options.side, options.repeats)}
        totals = "".join(f"{row[f'parameters_{k}']:12,d}" for k in (2, 3, 4))
        print(
            f"{label:36s}{totals}{row['forward_ms']:8.0f} ms{row['memory_mib']:8.0f} MiB",
            flush=True,
        )
        rows.append(row)
    device = f"{jax.devices()[0].device_kind} x {len(jax.devices())}, jax {jax.__version__}"
    print(device)
    if options.output:
        result = {"device": device, "side_px": options.side, "rows": rows}
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
