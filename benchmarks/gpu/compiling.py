"""Programs of several cases compiled side by side.

    python -m benchmarks.gpu.compiling CASE [--dry]

CASE: the fields of a case as a JSON list. The program is kept where the next process of this
machine finds it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks import measure, sides

TOY = "tests/support/tiny.py"  # configuration at toy size


def compile_all(cases: Sequence[sides.Case], dry: bool, seconds: float) -> list[sides.Case]:
    """Keep the program of each case, in as many processes as there are cores; those that are."""
    ends = time.monotonic() + seconds

    def compiled(case: sides.Case) -> bool:
        command = [sys.executable, "-m", "benchmarks.gpu.compiling", json.dumps(case)]
        try:
            left = max(0.0, ends - time.monotonic())
            subprocess.run([*command, *["--dry"] * dry], timeout=left, capture_output=True)
        except subprocess.TimeoutExpired:
            return False
        return True  # an error comes again, and is told, where the case is measured

    with ThreadPoolExecutor(measure.cores()) as pool:
        done = list(pool.map(compiled, cases))
    return [case for case, kept in zip(cases, done, strict=True) if kept]


def prepare(dry: bool) -> None:
    """Set the precision of products, the toy configuration and where programs are kept."""
    import jax

    from feedseg.runtime import xla

    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    xla.keep_programs()
    if dry:
        sides.CONFIGS["unet"] = TOY


def main(case: str, *flags: str) -> None:
    prepare("--dry" in flags)
    sides.feedseg_side(sides.Case(*json.loads(case)))


if __name__ == "__main__":
    main(*sys.argv[1:])
