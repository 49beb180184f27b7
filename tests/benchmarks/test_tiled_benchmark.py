"""What benchmarks/tiled.py says of tiles and windows is what is there."""

import numpy as np
import pytest

from feedseg import models
from feedseg.inference import loading
from tests.support.fake_model import Fake, bright

pytest.importorskip("torch")

from benchmarks import tiled


@pytest.fixture(autouse=True)
def plain_models(monkeypatch):
    monkeypatch.setattr(loading, "for_images", lambda model: model)


def numbers(model: Fake, side: int = 96) -> dict:
    return tiled.case(model, np.random.default_rng(0).integers(0, 256, (side, side, 1), np.uint8))


def test_every_network_is_there():
    assert {network for network, *_ in tiled.NETWORKS.values()} == set(models.names())


def test_tiles_of_a_convolutional_network_leave_no_trace_and_a_small_halo_does():
    exact, wrong = numbers(Fake(halo=4)), numbers(Fake(halo=0))
    assert exact["tiles"] == wrong["tiles"] == 9 and exact["rule"] == "centers of tiles"
    assert exact["max_difference"] < 1e-5 and exact["differing_labels"] == 0
    assert wrong["max_difference"] > 0.01 and wrong["differing_labels"] > 0


def test_windows_are_compared_with_the_whole_with_shifted_ones_and_with_centers():
    def by_window(image):  # above all how bright the window is
        p = 0.98 * image.mean() + 0.02 * bright(image)[..., 1]
        return np.stack([1 - p, p], -1)

    found = numbers(Fake(apply=by_window, window=16))
    assert (found["rule"], found["tile"], found["overlap"]) == ("blended windows", 16, 8)
    assert found["max_difference"] > 0.01
    assert 0 < found["shifted_difference"] < 1 and 0 <= found["shifted_labels"] < 0.5
    assert 2 * found["seam"] < found["seam_of_centres"]


def test_seams_by_hand():
    """Steps of 3 at column and row 4, of 1 at the others that are multiples of 2."""
    steps = np.array([0, 1, 0, 3, 0, 1, 0.0])
    places = np.concatenate([[0], np.cumsum(steps)])
    found = (places[:, None] + places)[..., None]
    assert tiled.seam(found, [4], 2) == pytest.approx(3)
