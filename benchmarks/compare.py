"""The command line and the line per case that `step` and `infer` share."""

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks import measure, sides

PEERS = ("eager", "compiled")
KEYS = ("case", "network", "batch", "side", "dtype", "device")


def arguments(description: str, batch: int, side: int, repeats: int) -> argparse.Namespace:
    """What can be asked for, with the comparison's own defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(sides.CONFIGS)
    parser.add_argument("--network", nargs="+", choices=names, default=names)
    parser.add_argument("--batch", type=int, default=batch, help=f"images ({batch})")
    parser.add_argument("--side", type=int, default=side, help=f"px, a multiple of 16 ({side})")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"timed calls ({repeats})")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="PyTorch forms")
    parser.add_argument("--output", type=Path, help="JSON file that keeps the cases")
    options = parser.parse_args()
    if min(options.batch, options.repeats) < 1 or options.side < 16 or options.side % 16:
        parser.error("--batch and --repeats start at 1, --side is a multiple of 16")
    return options


def run(what: str, options: argparse.Namespace) -> None:
    """All networks, one line each."""
    measure.require_torch()
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    facts = measure.machine()
    line = measure.Lines(options.output, KEYS)
    for name in options.network:
        case = sides.Case(what, name, options.batch, options.side, options.dtype)
        line(**compare(case, options.peers, options.repeats), **facts)


def compare(
    case: sides.Case,
    peers: Sequence[str],
    repeats: int,
    own: sides.Side | None = None,
    device: dict | None = None,
) -> dict:
    """Both libraries on one case.

    own: feedseg's side where it is compiled already; device: its peaks, as `measure.limits` has
    them, measured where there are none.
    """
    gc.collect()
    own = own or sides.feedseg_side(case)
    theirs, failed = _peers(case, peers)
    all_sides = {"feedseg": own, **theirs}
    found = measure.in_turns({name: side.run for name, side in all_sides.items()}, repeats)
    found = {name: time / case.dispatch for name, time in found.items()}
    flops = _useful_flops(case)
    device = device or measure.limits()
    moved = own.facts["program_bytes"]
    return {
        **case._asdict(),
        "classes": case.classes,
        "repeats": repeats,
        "seconds": found,
        "ratio": {peer: found[peer] / found["feedseg"] for peer in peers if peer in found},
        "images_per_s": {name: case.batch / time for name, time in found.items()},
        "peak_mib": {name: side.peak_mib for name, side in all_sides.items()},
        "compile_s": {name: side.compile_s for name, side in all_sides.items() if side.compile_s},
        **_rates(flops, found, device["peak_flop_per_s"]),
        **own.facts,
        "program_bytes_per_s": moved and moved / found["feedseg"],
        "share_of_peak_bytes": moved and moved / found["feedseg"] / device["peak_bytes_per_s"],
        **device,
        **failed,
    }


def _peers(case: sides.Case, peers: Sequence[str]) -> tuple[dict[str, sides.Side], dict]:
    """PyTorch's sides, and why torch.compile has none where it failed."""
    found, failed = {}, {}
    for peer in peers:
        from benchmarks import torch_side

        try:
            found[peer] = torch_side.side(case, compiled=peer == "compiled")
        except Exception as error:  # torch.compile raises whatever a compiler may
            if peer == "eager":
                raise
            failed["compiled_failed"] = f"{type(error).__name__}: {str(error)[:200]}"
    return found, failed


def _useful_flops(case: sides.Case) -> int | None:
    """Operations of the network's convolutions and products; None without PyTorch to count them."""
    if measure.torch is None:
        return None
    from benchmarks import torch_side

    return torch_side.useful_flops(case)


def _rates(flops: int | None, seconds: dict[str, float], peak: float) -> dict:
    """Useful operations per second of every side, and their share of the device's peak."""
    if flops is None:
        return {}
    rates = {name: flops / time for name, time in seconds.items()}
    return {
        "useful_gflop": flops / 1e9,
        "gflop_per_s": {name: rate / 1e9 for name, rate in rates.items()},
        "share_of_peak_flops": {name: rate / peak for name, rate in rates.items()},
    }
