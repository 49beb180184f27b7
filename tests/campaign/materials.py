"""What the tries share: a folder, the environment of commands, images, undisturbed outputs."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "feedseg" / "inference" / "trained_models" / "nuclei.feedseg.zip"
_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


class Unprepared(Exception):
    """What a fault is about does not work with nothing to disturb it."""


@functools.cache
def folder() -> Path:
    """A temporary folder for all tries; `remove` removes it."""
    return Path(tempfile.mkdtemp(prefix="feedseg-campaign-"))


def remove() -> None:
    if folder.cache_info().currsize:
        shutil.rmtree(folder(), ignore_errors=True)
        folder.cache_clear()
        for made in (images, made_once):
            made.cache_clear()


def environment() -> dict[str, str]:
    """Of commands: CPU, quick compilation, programs kept for all tries, no other settings."""
    own = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": _FAST,
        "JAX_COMPILATION_CACHE_DIR": str(folder() / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(ROOT),
    }
    return {**os.environ, **own}


@functools.cache
def images() -> Path:
    """A folder of six small images and two larger ones."""
    where = folder() / "images"
    where.mkdir()
    rng = np.random.default_rng(0)
    for number, side in enumerate([64] * 6 + [300, 500]):
        pixels = rng.integers(0, 256, (side, side), dtype=np.uint8)
        tifffile.imwrite(where / f"{number}.tif", pixels)
    return where


@functools.cache
def made_once(make, *arguments) -> object:
    """`make(*arguments)`, called once for all tries."""
    return make(*arguments)
