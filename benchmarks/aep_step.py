"""Is a training step of AEP as fast as the same step in PyTorch on this machine?

    python benchmarks/aep_step.py --output aep_step.json
    python benchmarks/aep_step.py --network net2

Times feedseg's own jitted training step against a PyTorch (eager) implementation of the same
networks, loss and Adam, both on the CPU with the same cores, in turns within one process. Each time
is the median of `--repeats` single steps after two that warm up; the first of those also compiles.
A ratio (PyTorch / feedseg) of 1 or more means that feedseg is not slower. Run it on a quiet
machine: PyTorch's threads wait for one another and suffer more from other work. Needs PyTorch:
pip install -e ".[bench]"
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

try:
    import torch
except ImportError:
    sys.exit('this comparison needs PyTorch: pip install -e ".[bench]"')

sys.path.insert(0, str(Path(__file__).parents[1]))  # for configs and benchmarks
from benchmarks.peers.aep import Aep, Net, aep_loss, net2_loss

CLASSES, WARM_UPS = 2, 2


# Steps --------------------------------------------------------------------------------------------


def torch_step(network: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """One training step of the PyTorch network on the batch; returns the loss."""
    torch.manual_seed(0)
    if network == "aep":
        model, loss_of = Aep(CLASSES, penultimate=CLASSES), aep_loss
    else:
        model, loss_of = Net(CLASSES), net2_loss
    image = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    target = torch.from_numpy(labels).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model, image, target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def feedseg_step(network: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """One training step as feedseg's training takes it: gathering, scaling, loss, Adam."""
    import jax

    from configs import aep
    from feedseg import models, optimizer, parallel
    from feedseg import step as steps

    config = aep.get_config(f"dataset=synthetic,model={network}")
    batch = len(images)
    mesh = parallel.make_mesh(1, batch, require_gpu=False)
    model = models.build(CLASSES, config.model)
    adam = optimizer.build(config.optimizer, optimizer.schedule(config.optimizer, 1, 1))
    terms = config.loss.terms.to_dict()
    state = steps.init_state(model, adam, (1, *images.shape[1:]), terms, config.seed)
    limits = np.zeros(batch, np.float32), np.full(batch, 255, np.float32)
    runs = dict(seed=np.int32(config.seed), class_weights=np.ones(CLASSES, np.float32))
    items = parallel.put(mesh, steps.TrainItems(images, labels, *limits, **runs))
    place = parallel.batch_placer(mesh)
    one_step = steps.make_train_step(model, adam, config, batch, batch, place)
    compiled = parallel.compile_train(mesh, one_step)
    state = parallel.put(mesh, state)

    def step() -> float:
        nonlocal state
        state, loss = jax.block_until_ready(compiled(state, items))
        return float(loss)

    return step


# Measuring ----------------------------------------------------------------------------------------


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Seconds and loss of one step. Exits if the loss is not finite: such steps time nothing."""
    begin = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - begin
    if not np.isfinite(loss):
        sys.exit(f"the loss is {loss}: nothing to compare")
    return seconds, loss


def alternate(steps: dict[str, Callable[[], float]], repeats: int) -> dict[str, dict]:
    """Times of all steps in turns, the order reversed every time; losses of the last ones."""
    results = {name: dict(warm_up_s=[], seconds=[]) for name in steps}
    for name, step in steps.items():
        results[name]["warm_up_s"] = [timed(step)[0] for _ in range(WARM_UPS)]
    for repeat in range(repeats):
        for name in list(steps)[:: 1 if repeat % 2 == 0 else -1]:
            seconds, results[name]["last_loss"] = timed(steps[name])
            results[name]["seconds"].append(seconds)
    return results


def summary(options: argparse.Namespace, results: dict[str, dict]) -> dict:
    """Medians, speeds and the ratio."""
    for result in results.values():
        result["median_s"] = statistics.median(result["seconds"])
        result["images_per_second"] = options.batch / result["median_s"]
    return dict(
        network=options.network,
        batch=options.batch,
        size_px=options.size,
        classes=CLASSES,
        repeats=options.repeats,
        results=results,
        ratio=results["torch"]["median_s"] / results["feedseg"]["median_s"],
        machine=machine(options.threads, options.load),
    )


def load_average() -> float | None:
    """Processes at work in the last minute, where the system says so."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine(threads: int, load: float | None) -> dict:
    """What the times depend on; load: at the start, before this process did anything."""
    import jax

    return dict(
        processor=processor(),
        system=platform.platform(),
        cores=os.cpu_count(),
        threads=threads,
        load_average_at_start=load,
        python=platform.python_version(),
        jax=jax.__version__,
        torch=torch.__version__,
    )


def processor() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(found: dict) -> None:
    print(
        f"{found['network']}, batch {found['batch']}, {found['size_px']} x {found['size_px']} px, "
        f"{found['classes']} classes, median of {found['repeats']}"
    )
    for name, result in found["results"].items():
        times = " ".join(f"{t:.2f}" for t in result["seconds"])
        print(
            f"  {name:8} {result['median_s']:8.3f} s a step  "
            f"{result['images_per_second']:7.2f} images/s   ({times}; first "
            f"{result['warm_up_s'][0]:.1f} s)"
        )
    facts = found["machine"]
    print(
        f"  ratio torch / feedseg: {found['ratio']:.2f}\n"
        f"  {facts['processor']}, {facts['threads']} of {facts['cores']} cores, load "
        f"{facts['load_average_at_start']} at the start, jax {facts['jax']}, torch {facts['torch']}"
    )


# Command line -------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=("aep", "net2"), default="aep")
    parser.add_argument("--batch", type=int, default=16, help="images (16)")
    parser.add_argument("--size", type=int, default=256, help="side in px, a multiple of 8 (256)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each (5)")
    parser.add_argument("--threads", type=int, default=0, help="cores used; 0: all allowed (0)")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    if min(options.batch, options.repeats) < 1:
        parser.error("--batch and --repeats start at 1")
    if options.size < 8 or options.size % 8:
        parser.error(f"--size={options.size} is no multiple of 8")
    return options


def use_threads(wanted: int) -> int:
    """Bind the process to `wanted` cores before JAX counts them; PyTorch gets as many threads."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if not hasattr(os, "sched_setaffinity"):
        if wanted:
            sys.exit("--threads needs Linux; without it both use all cores")
        count = os.cpu_count() or 1
    else:
        allowed = sorted(os.sched_getaffinity(0))
        if not 0 <= wanted <= len(allowed):
            sys.exit(f"--threads={wanted}: {len(allowed)} cores are allowed here")
        count = wanted or len(allowed)
        os.sched_setaffinity(0, allowed[:count])
    torch.set_num_threads(count)
    return count


def main() -> int:
    options = arguments()
    options.load = load_average()
    if options.load and options.load > 0.5:
        print(f"the machine is busy (load {options.load}): these times will mean little")
    options.threads = use_threads(options.threads)
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size)
    images = rng.integers(256, size=(*shape, 1), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=shape, dtype=np.uint8)
    steps = {
        "feedseg": feedseg_step(options.network, images, labels),
        "torch": torch_step(options.network, images, labels),
    }
    found = summary(options, alternate(steps, options.repeats))
    report(found)
    if options.output:
        from feedseg.atomic import write_json_atomic

        write_json_atomic(options.output, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
