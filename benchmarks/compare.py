"""The command line and the line per case that `step` and `infer` share."""

import argparse
import gc
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
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    facts = measure.machine()
    line = measure.Lines(options.output, KEYS)
    for name in options.network:
        case = sides.Case(what, name, options.batch, options.side, options.dtype)
        line(**compare(case, options.peers, options.repeats), **facts)


def compare(case: sides.Case, peers: list[str], repeats: int) -> dict:
    """Both libraries on one case."""
    gc.collect()
    all_sides, failed = {"feedseg": sides.feedseg_side(case)}, {}
    for peer in peers:
        try:
            all_sides[peer] = sides.torch_side(case, compiled=peer == "compiled")
        except Exception as error:  # torch.compile raises whatever a compiler may
            if peer == "eager":
                raise
            failed["compiled_failed"] = f"{type(error).__name__}: {str(error)[:200]}"
    found = measure.in_turns({name: side.run for name, side in all_sides.items()}, repeats)
    own, flops = all_sides["feedseg"], sides.useful_flops(case)
    device = measure.limits()
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
        "useful_gflop": flops / 1e9,
        "gflop_per_s": {name: flops / time / 1e9 for name, time in found.items()},
        "share_of_peak_flops": {
            name: flops / time / device["peak_flop_per_s"] for name, time in found.items()
        },
        **own.facts,
        "program_bytes_per_s": moved and moved / found["feedseg"],
        "share_of_peak_bytes": moved and moved / found["feedseg"] / device["peak_bytes_per_s"],
        **device,
        **failed,
    }
