"""Time and memory of `feedseg predict` on one large image, in a process of its own.

    python -m benchmarks.large_image --side 6000 12000 --output results/benchmarks/large_image.json

A 16-bit mosaic of one smooth random picture, in a temporary folder, by a bundled model.
One JSON line per side: seconds from command to files, MPixel/s, highest resident size (Linux), and
the MPixel/s of the network alone on tiles in memory, which is measured before and after.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy
import tifffile

from benchmarks import measure
from feedseg.inference import backends, segment

PICTURE = 1024  # px, side of what the mosaic repeats


def mosaic(path: Path, side: int) -> None:
    """An uncompressed uint16 TIFF of side x side px, written by rows of pictures."""
    noise = np.random.default_rng(0).normal(size=(PICTURE, PICTURE))
    smooth = scipy.ndimage.gaussian_filter(noise, 4, mode="wrap")
    low, high = smooth.min(), smooth.max()
    picture = ((smooth - low) / (high - low) * 65535).astype(np.uint16)
    rows = np.tile(picture, (1, -(-side // PICTURE)))[:, :side]
    image = tifffile.memmap(path, shape=(side, side), dtype=np.uint16)
    for top in range(0, side, PICTURE):
        image[top : top + PICTURE] = rows[: side - top]
    image.flush()


class Bare:
    """The network alone, on one tile of an image that is in memory; a tile of all pixels kept."""

    def __init__(self, model: str, side: int):
        self._model = backends.load(model, only_labels=True)
        layout = segment.tiles_for(self._model, side, side)
        self._pixels = side**2 / layout.num_tiles
        shape = (1, *layout.window, self._model.channels)
        self._tile = np.random.default_rng(0).random(shape, np.float32)
        self._run()

    def _run(self) -> None:
        np.asarray(self._model.apply(self._tile))

    def times(self, count: int = 10) -> list[float]:
        """Seconds per million pixels kept."""
        return [measure.seconds(self._run) / self._pixels * 1e6 for _ in range(count)]


def highest(command: list[str]) -> float:
    """Runs a command; its highest resident size, MiB.

    Not by getrusage: there a process begins with the size of the one that started it.
    """
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) / 1024 if found else 0)
            time.sleep(0.05)
        if process.returncode:
            sys.exit(process.stderr.read().decode())
    return peak


def case(side: int, model: str, more: list[str]) -> dict:
    """One image by a process of its own, between two measurements of the network alone."""
    bare = Bare(model, side)
    before = bare.times()
    with tempfile.TemporaryDirectory() as folder:
        mosaic(Path(folder) / "image.tif", side)
        command = [sys.executable, "-m", "feedseg.cli", "predict", "--model", model, *more]
        command += ["--input", f"{folder}/image.tif", "--output", f"{folder}/labels"]
        begun = time.perf_counter()
        peak = highest(command)
        seconds = time.perf_counter() - begun
    speed = side**2 / 1e6 / seconds
    alone = 1 / statistics.median(before + bare.times())
    return {
        "case": "large_image",
        "side": side,
        "model": model,
        "options": more,
        "seconds": seconds,
        "mpixel_per_s": speed,
        "network_mpixel_per_s": alone,
        "share_of_network": speed / alone,
        "peak_mib": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, nargs="+", default=[6000, 12000], help="px, growing")
    parser.add_argument("--model", default="sstem")
    parser.add_argument("--output", type=Path, help="JSON file that keeps the cases")
    options, more = parser.parse_known_args()
    line = measure.Lines(options.output, ("case", "side", "model", "options", "device"))
    facts = measure.machine()
    for side in sorted(options.side):
        line(**case(side, options.model, more), **facts)


if __name__ == "__main__":
    main()
