"""Training K small networks as one program against K programs, in models per hour.

    python benchmarks/together.py --config configs/baseline.py:model=unet,dataset=synthetic

Forms: `solo` (one program called for every run in turn), `vmap` (one step over stacked arrays, as
feedseg/training/batched.py has it) and `copies` (the step written out for every run), interleaved,
after one step that does not count. Data are random images. One JSON line per form.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from feedseg import models
from feedseg.runs import config as configs
from feedseg.runtime import mesh as parallel
from feedseg.training import optimizer
from feedseg.training import step as steps

CLASSES = 4


def make_items(seed: int, count: int, side: int) -> steps.TrainItems:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, 1), np.uint8)
    labels = rng.integers(0, CLASSES, (count, side, side), np.uint8)
    limits = np.zeros(count, np.float32), np.full(count, 255, np.float32)
    own = dict(seed=np.int32(seed), class_weights=np.ones(CLASSES, np.float32))
    return steps.TrainItems(images, labels, *limits, **own)


def solo(mesh, step, states, items):
    program, states = parallel.compile_train(mesh, step), list(states)

    def run():
        for k, own in enumerate(items):
            states[k], loss = program(states[k], own)
        return loss

    return run


def together(mesh, step, states, items):
    program = parallel.compile_train(mesh, step)

    def run():
        nonlocal states
        states, losses = program(states, items)
        return losses

    return run


def stacked(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def copies(step):
    def steps(states, items):
        pairs = [step(*each) for each in zip(states, items, strict=True)]
        return tuple(state for state, _ in pairs), tuple(loss for _, loss in pairs)

    return steps


def seconds(action) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - begun


def forms(config, models_count: int, batch: int, side: int, names=("solo", "vmap", "copies")):
    """Each form's call that takes one step of every model; its result is not waited for."""
    mesh = parallel.make_mesh(1, batch, require_gpu=False)
    model = models.build(CLASSES, config.model)
    tx = optimizer.build(config.optimizer, optimizer.schedule(config.optimizer, 1, 1000))
    step = steps.make_train_step(model, tx, config, 1, batch, parallel.batch_placer(mesh))
    terms, shape = config.loss.terms.to_dict(), (1, side, side, 1)
    seeds = range(models_count)

    def states():
        return [
            parallel.put(mesh, steps.init_state(model, tx, shape, terms, seed)) for seed in seeds
        ]

    items = [parallel.put(mesh, make_items(seed, batch, side)) for seed in seeds]
    ways = {
        "solo": lambda: solo(mesh, step, states(), items),
        "vmap": lambda: together(mesh, jax.vmap(step), stacked(states()), stacked(items)),
        "copies": lambda: together(mesh, copies(step), tuple(states()), tuple(items)),
    }
    return {name: ways[name]() for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/baseline.py:model=unet")
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=256, help="px")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config, _ = configs.parse_flags([f"--config={options.config}"])
    ways = forms(config, options.models, options.batch, options.side)
    first = {name: seconds(way) for name, way in ways.items()}
    times = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(seconds(way))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        row = {
            "form": name,
            "config": options.config,
            "models": options.models,
            "batch": options.batch,
            "side_px": options.side,
            "ms": 1000 * value,
            "ratio_to_solo": median["solo"] / value,
            "models_per_hour_of_1000_steps": 3.6 * options.models / value,
            "first_s": first[name],
            "device": f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
