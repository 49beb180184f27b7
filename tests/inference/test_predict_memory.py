"""How much memory a prediction takes: little of it for each pixel of an image's width."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.support.fake_model import Fake, run

CLEAR = Path("/proc/self/clear_refs")
TILE, HEIGHT = 512, 1300  # three rows of tiles
NARROW, WIDE = 8192, 40960  # px


def classes(image):
    return np.zeros((*image.shape[:3], 1), np.uint8)


def halves(image):
    return np.full((*image.shape[:3], 2), 0.5, np.float32)


def highest(folder: Path, width: int, model: Fake, height: int = HEIGHT, **options) -> float:
    """Bytes by which an image of this size raises what the process holds at most."""

    def status(key: str) -> int:
        return 1024 * int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])

    folder.mkdir()
    tifffile.memmap(folder / "a.tif", shape=(height, width), dtype=np.uint16).flush()
    CLEAR.write_text("5")
    before = status("VmRSS")
    run(folder / "a.tif", folder / "out", model, tile=TILE, **options)
    return status("VmHWM") - before


@pytest.mark.skipif(not CLEAR.exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("apply", "options", "bytes_per_pixel"),
    [
        (classes, {}, 7),  # of a row of tiles: uint16 as stored, class ids, small pieces
        (halves, {"probabilities": "float32"}, 15),  # and two float32
        (halves, {"probabilities": "uint8"}, 15),
    ],
)
def test_only_a_row_of_tiles_is_held(tmp_path, apply, options, bytes_per_pixel):
    model = Fake(apply=apply)
    highest(tmp_path / "first", NARROW, model, **options)
    narrow = highest(tmp_path / "narrow", NARROW, model, **options)
    wide = highest(tmp_path / "wide", WIDE, model, **options)
    assert (wide - narrow) / ((WIDE - NARROW) * TILE) < bytes_per_pixel


@pytest.mark.skipif(not CLEAR.exists(), reason="needs /proc")
@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_of_a_rescaled_image_a_few_rows_are_held(tmp_path, scale):
    model, width, low, high = Fake(apply=halves), 1024, 2048, 16384
    options = dict(scale=scale, probabilities="uint8")
    highest(tmp_path / "first", width, model, low, **options)
    before = highest(tmp_path / "low", width, model, low, **options)
    after = highest(tmp_path / "high", width, model, high, **options)
    assert (after - before) / ((high - low) * width) < 2  # bytes per pixel; a page has 4 and more
