"""Does the cost of inference grow linearly with the area of the image?

    python -m benchmarks.area --output results/benchmarks/area.json
    python -m benchmarks.area --network unet --sides 64 128 256 --repeats 1

One image of 64 to 2048 px, the networks made of convolutions. One JSON line per network: times,
nanoseconds per pixel, and these relative to 256 px; linear means within 20 % of it.
"""

import argparse
import gc
from pathlib import Path

import jax

from benchmarks import measure, sides

SIDES = (64, 128, 256, 512, 1024, 2048)  # px
REFERENCE = 256  # px
WITHIN = 0.2


def linearity(times: dict[int, float]) -> dict:
    """Time per pixel of each side, relative to that of 256 px, and from where on it is linear.

    times: seconds by side. linear_from_px: the smallest side from which on all are within 20 %;
    None if the largest is not.
    """
    per_pixel = {side: 1e9 * seconds / side**2 for side, seconds in times.items()}
    reference = per_pixel.get(REFERENCE) or per_pixel[max(per_pixel)]
    relative = {side: value / reference for side, value in per_pixel.items()}
    linear_from = None
    for side in sorted(relative, reverse=True):
        if abs(relative[side] - 1) > WITHIN:
            break
        linear_from = side
    return {
        "ns_per_px": per_pixel,
        "relative": relative,
        "linear_from_px": linear_from,
        "linear": linear_from == min(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(sides.CONFIGS)
    parser.add_argument("--network", nargs="+", choices=names, default=names)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="px")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls (7)")
    parser.add_argument("--output", type=Path, help="JSON file that keeps the cases")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    line = measure.Lines(options.output, ("case", "network", "device"))
    for name in options.network:
        times = {}
        for side in options.sides:
            run = sides.feedseg_side(sides.Case("forward", name, 1, side, "float32")).run
            times[side] = measure.in_turns({"feedseg": run}, options.repeats)["feedseg"]
            gc.collect()
        row = dict(case="area", network=name, batch=1, repeats=options.repeats, seconds=times)
        line(**row, **linearity(times), **measure.machine())


if __name__ == "__main__":
    main()
