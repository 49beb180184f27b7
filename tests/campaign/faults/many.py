"""Many small images, many pages, many runs in one command: all are there, in bounded memory."""

import shutil

import numpy as np
import tifffile
from PIL import Image

from tests.campaign import materials, process, tasks
from tests.campaign.outcome import judged
from tests.campaign.runs import rename

IMAGES, PAGES, RUNS = 10_000, 3_000, 1_000
MOST_MB = 1500


def attempt(rng, folder):
    return rng.choice((_images, _pages, _runs))(folder)


def _predict(folder):
    given = ["--model", materials.BUNDLED, "--input", folder / "in", "--output", folder / "out"]
    command = ["-m", "feedseg.cli", "predict", *given]
    return process.python(*command, limit_s=600, memory_mb=MOST_MB)


def _images(folder):
    (folder / "in").mkdir()
    for number in range(IMAGES):
        pixels = np.full((16, 16), number % 251, np.uint8)
        Image.fromarray(pixels).save(folder / "in" / f"{number}.png")
    ended = _predict(folder)
    found = len(list((folder / "out").glob("*_labels.tif")))
    missing = "" if found == IMAGES else f"{found} label images"
    return _judged(f"{IMAGES} images", ended, missing)


def _pages(folder):
    (folder / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (PAGES, 32, 32), dtype=np.uint8)
    tifffile.imwrite(folder / "in" / "stack.tif", pixels)
    ended = _predict(folder)
    path = folder / "out" / "stack_labels.tif"
    shape = tifffile.imread(path).shape if path.exists() else ()
    missing = "" if shape == pixels.shape else f"labels of shape {shape}"
    return _judged(f"{PAGES} pages", ended, missing)


def _runs(folder):
    """Copies of a run, without its checkpoints."""
    skip = shutil.ignore_patterns("checkpoints", "best", "*.png")
    for number in range(RUNS):
        run = shutil.copytree(tasks.run(), folder / "runs" / str(number), ignore=skip)
        rename(run, seed=number // 10, run_name=f"m{number % 10}")
    given = ["report", folder / "runs", "--output", folder / "report", "--by", "run"]
    ended = process.python("-m", "feedseg.cli", *given, limit_s=600, memory_mb=MOST_MB)
    table = folder / "report" / "runs.csv"
    rows = len(table.read_text().splitlines()) - 1 if table.exists() else 0
    missing = "" if rows == RUNS else f"{rows} rows in runs.csv"
    return _judged(f"{RUNS} runs in a report", ended, missing)


def _judged(what, ended, missing):
    did = f"{what} in {ended.seconds:.0f} s and {ended.peak_mb:.0f} MB"
    failed = f"exit code {ended.code}: {ended.err[-200:]}" if ended.code else ""
    return judged(ended.problem() or failed or missing, did)
