"""Parameters, times and memory of every network and every variant of the feedback networks.

    python benchmarks/network_size.py --output results/benchmarks/network_size.json
    python benchmarks/network_size.py --only self code10

One image of 256 x 256 px (--side), random weights: forward in evaluation mode, and a training step
(cross-entropy, its gradients, Adam). Parameters for 2, 3 and 4 classes, times (median of --repeats)
and memory for 4. Memory is what the compiled program needs at once beside what it is given, as the
compiler reports it. Rows of an output file that are not measured again stay in it.
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
from feedseg.training import optimizer
from feedseg.training import step as steps

LAYOUTS = ("none", "paper6_levels", "paper6_top", "code10", *"abcde", *"ABCDE", "abde", "ABDE")
KINDS = ("add", "conv1x1", "se", "light", "source_target", "self")
WIDE = dict(filters=(64, 128, 256, 512, 1024))
DEEP = dict(deep_supervision=True)
VARIANTS = {
    "U-Net": ("unet", {}),
    "original U-Net": ("unet_original", {}),
    "RU-Net": ("ru_net", {}),
    "RU-Net, separate kernels": ("ru_net", dict(kernel="separate")),
    "RU-Net, unshared kernels": ("ru_net", dict(kernel="unshared_per_step")),
    "R2U-Net 64-1024": ("ru_net", dict(WIDE, up="nearest", residual=True)),
    "UNet++": ("unet_plus_plus", {}),
    "UNet++, deep supervision": ("unet_plus_plus", DEEP),
    "UNet++, Keras form": ("unet_plus_plus", dict(form="keras")),
    "Attention U-Net": ("attention_unet", {}),
    "Attention U-Net, original form": ("attention_unet", dict(form="oktay")),
    "UNet 3+": ("unet3plus", {}),
    "UNet 3+, deep supervision": ("unet3plus", DEEP),
    "SAUNet": ("saunet", {}),
    "SA-UNet": ("sa_unet", {}),
    "AEP's network 2": ("aep_net", {}),
    "AEP + AWEL": ("aep", {}),
    "U-Net of 3 convolutions": ("kato_unet", {}),
    "blood-cell U-Net": ("blood_unet", {}),
    "blood-cell U-Net 16-256": ("blood_unet", dict(filters=(16, 32, 64, 128, 256))),
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


def median_ms(function, *arguments, repeats: int) -> float:
    """Milliseconds of a call, after one that does not count; the first result is fed back."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - begun)
        if isinstance(result, tuple):
            arguments = (result[0], *arguments[1:])
    return 1000 * statistics.median(seconds[1:])


def mib(compiled) -> float:
    memory = compiled.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (memory.temp_size_in_bytes + own) / 2**20


def forward(model, variables, image, repeats: int) -> dict:
    run = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
    compiled = run.lower(variables, image).compile()
    ms = median_ms(compiled, variables, image, repeats=repeats)
    return {"forward_ms": ms, "forward_mib": mib(compiled)}


def training(model, variables, image, repeats: int) -> dict:
    """A step as in a training, of one image."""
    config = common.base()
    tx = optimizer.build(config.optimizer, optimizer.schedule(config.optimizer, 1, 1))
    params = variables["params"]
    zeros = {"loss": 0.0, "final/cross_entropy": 0.0, "bad_step": jnp.int32(-1)}
    state = steps.TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
        totals=jax.tree.map(jnp.asarray, zeros),
    )
    labels = jnp.zeros(image.shape[:3], jnp.uint8).at[:, ::2].set(1)
    runs = dict(seed=jnp.int32(0), class_weights=jnp.ones(model.num_classes))
    items = steps.TrainItems(image, labels, jnp.zeros(1), jnp.ones(1), **runs)
    step = steps.make_train_step(model, tx, config, 1, 1)
    compiled = jax.jit(step, donate_argnums=0).lower(state, items).compile()
    ms = median_ms(compiled, state, items, repeats=repeats)
    return {"training_ms": ms, "training_mib": mib(compiled)}


def measure(name: str, changes: dict, side: int, repeats: int) -> dict:
    """One variant."""
    model = build(name, changes, 4)
    small = jnp.zeros((1, model.stride, model.stride, 1))
    found = {
        f"parameters_{k}": count(variables_of(build(name, changes, k), small)["params"])
        for k in (2, 3, 4)
    }
    image = jax.random.uniform(jax.random.key(1), (1, side, side, 1))
    shapes = variables_of(model, image)
    variables = jax.tree.map(lambda x: 0.05 * jax.random.normal(jax.random.key(2), x.shape), shapes)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    found["statistics"] = count(shapes.get("batch_stats", {}))
    found |= forward(model, variables, image, repeats)
    return found | training(model, variables, image, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="image side, px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the variants' names")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    device = f"{jax.devices()[0].device_kind} x {len(jax.devices())}, jax {jax.__version__}"
    rows = {}
    if options.output and options.output.exists():
        rows = {row["variant"]: row for row in json.loads(options.output.read_text())["rows"]}
    print(f"{device}\n{'':34s}{'parameters, 2, 3, 4 classes':>36s}{'forward':>20s}{'step':>21s}")
    for label, (name, changes) in VARIANTS.items():
        if not any(part in label for part in options.only):
            continue
        row = {"variant": label, **measure(name, changes, options.side, options.repeats)}
        totals = "".join(f"{row[f'parameters_{k}']:12,d}" for k in (2, 3, 4))
        print(
            f"{label:34s}{totals}{row['forward_ms']:8.0f} ms{row['forward_mib']:6.0f} MiB"
            f"{row['training_ms']:8.0f} ms{row['training_mib']:7.0f} MiB",
            flush=True,
        )
        rows[label] = row
        if options.output:
            ordered = [rows[each] for each in VARIANTS if each in rows]
            result = {"device": device, "side_px": options.side, "rows": ordered}
            options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
