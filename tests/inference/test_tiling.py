"""Tiled equals untiled, whatever the size of the image; windows are blended without seams."""

import numpy as np
import pytest
from scipy.ndimage import convolve, zoom

from feedseg.inference import tiling
from feedseg.runtime.errors import UserError

KERNEL = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)  # radius 2


def local_network(batch: np.ndarray) -> np.ndarray:
    """Two 5x5 convolutions that see zeros outside the window: receptive radius 4 px."""
    once = [convolve(image[..., 0], KERNEL, mode="constant") for image in batch]
    twice = [convolve(np.tanh(image), KERNEL, mode="constant") for image in once]
    return np.stack([np.stack([a, b], -1) for a, b in zip(once, twice, strict=True)])


def striding_network(batch: np.ndarray) -> np.ndarray:
    """Mean over 4x4 blocks, 3x3 convolution there, back up: stride 4, radius below 8 px."""
    outputs = []
    for image in batch[..., 0]:
        height, width = image.shape
        small = image.reshape(height // 4, 4, width // 4, 4).mean((1, 3))
        small = convolve(small, KERNEL[:3, :3], mode="constant")
        outputs.append(zoom(small, 4, order=0, mode="nearest", grid_mode=True)[..., None])
    return np.stack(outputs)


def whole(image: np.ndarray, network, stride: int) -> np.ndarray:
    height, width = image.shape[:2]
    missing = [(0, -height % stride), (0, -width % stride), (0, 0)]
    padded = np.pad(image, missing, mode="symmetric")
    return network(padded[None])[0][:height, :width]


@pytest.mark.parametrize("size", [(64, 64), (61, 130), (33, 200), (7, 90), (1, 1), (32, 33)])
@pytest.mark.parametrize(
    ("network", "halo", "stride"), [(local_network, 4, 1), (striding_network, 8, 4)]
)
def test_tiled_equals_untiled(size, network, halo, stride):
    image = np.random.default_rng(1).random((*size, 1)).astype(np.float32)
    layout = tiling.plan(*size, tile=32, halo=halo, stride=stride)
    seen = set()

    def watch(batch):
        seen.add(batch.shape)
        return network(batch)

    result = tiling.apply_tiled(image, watch, layout)
    np.testing.assert_allclose(result, whole(image, network, stride), atol=1e-5)
    assert len(seen) == 1  # one shape, one compilation
    assert max(size) <= 32 or len(layout.rows) * len(layout.columns) > 1


def test_a_halo_below_the_receptive_field_is_visible():
    """The comparison above would notice tiles without real neighbors."""
    image = np.random.default_rng(1).random((64, 64, 1)).astype(np.float32)
    layout = tiling.plan(64, 64, tile=32, halo=1, stride=1)
    result = tiling.apply_tiled(image, local_network, layout)
    assert np.abs(result - whole(image, local_network, 1)).max() > 0.01


@pytest.mark.parametrize("seed", range(30))
def test_spans_cover_everything_once(seed):
    rng = np.random.default_rng(seed)
    stride = int(rng.choice([1, 2, 8, 16]))
    halo, height = int(rng.integers(0, 40)), int(rng.integers(1, 700))
    tile = tiling.smallest_tile(halo, stride) + int(rng.integers(0, 100))
    layout = tiling.plan(height, 50, tile, halo, stride)
    edges = [span.keep for span in layout.rows] + [layout.padded[0]]
    assert edges[0] == 0 and edges == sorted(set(edges))
    for span, following in zip(layout.rows, edges[1:], strict=True):
        assert span.start % stride == 0 and span.stop == following
        assert span.start >= 0 and span.start + layout.window[0] <= layout.padded[0]
        assert span.start == 0 or span.keep - span.start >= halo
        end = span.start + layout.window[0]
        assert end == layout.padded[0] or end - span.stop >= halo


def test_tiny_images_are_mirrored_up_to_the_stride():
    layout = tiling.plan(3, 2, tile=64, halo=20, stride=16)
    image = np.arange(6.0).reshape(3, 2, 1)
    window, *others = tiling.inputs(lambda first, last: image[first:last], layout)
    assert window.shape == (1, 16, 16, 1) and not others
    assert window[0, :6, 0, 0].tolist() == [0, 2, 4, 4, 2, 0]


def test_a_tile_without_a_center_is_refused():
    with pytest.raises(UserError, match="--tile 112"):
        tiling.plan(500, 500, tile=64, halo=40, stride=16)
    whole = tiling.plan(60, 60, tile=64, halo=40, stride=16)
    assert len(whole.rows) == len(whole.columns) == 1
    assert tiling.automatic_tile(200, 16) >= tiling.smallest_tile(200, 16)


# Windows that are blended -----------------------------------------------------------------------

SIZES = [(40, 40), (16, 16), (5, 90), (17, 33), (24, 25), (61, 130)]


def places(batch: np.ndarray) -> np.ndarray:
    """Where a pixel lies in its window, from 0 to 1 along each axis: the worst of seams."""
    y, x = np.mgrid[: batch.shape[1], : batch.shape[2]]
    return np.stack([y / y.max(), x / x.max()], -1)[None].astype(np.float32)


@pytest.mark.parametrize("overlap", [None, 5, 11, 0])
@pytest.mark.parametrize("size", SIZES)
def test_windows_of_a_network_of_single_pixels_leave_no_trace(size, overlap):
    """Every window is put where it was cut out, and weights add up to 1, at the borders too."""
    image = np.random.default_rng(2).random((*size, 1)).astype(np.float32)
    layout = tiling.windows(*size, 16, overlap)
    shapes = set()

    def network(batch):
        shapes.add(batch.shape)
        return np.concatenate([batch, np.ones_like(batch)], -1)

    result = tiling.apply_tiled(image, network, layout)
    np.testing.assert_allclose(result[..., :1], image, atol=1e-6)
    np.testing.assert_allclose(result[..., 1], 1, atol=1e-6)
    assert shapes == {(1, 16, 16, 1)} and result.shape == (*size, 2)


@pytest.mark.parametrize("size", SIZES)
def test_the_jump_at_a_border_between_windows_is_that_of_the_ramp(size):
    image, window = np.zeros((*size, 1), np.float32), 16
    blended = tiling.apply_tiled(image, places, tiling.windows(*size, window))
    ramp = 1 / (window - 1) + 2 * np.pi / window  # of the network, and pi / V
    for axis in (0, 1):
        assert np.abs(np.diff(blended, axis=axis)).max() <= ramp
    kept = tiling.apply_tiled(image, places, tiling.windows(*size, window, overlap=0))
    if max(size) > window:
        assert max(np.abs(np.diff(kept, axis=axis)).max() for axis in (0, 1)) > ramp


def test_weights_by_hand():
    """W = 4, V = 2: sin^4 of pi/8 and 3 pi/8 in the overlap / their sum, 1 elsewhere."""
    spans = tiling.windows(6, 6, 4).rows
    low, high = 0.0214466 / 0.75, 0.7285534 / 0.75
    expected = [[1, 1, high, low], [low, high, 1, 1]]
    np.testing.assert_allclose(tiling.blending_weights(spans, 4, 2), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_evenly_spread(seed):
    rng = np.random.default_rng(seed)
    window, side = int(rng.integers(2, 300)), int(rng.integers(1, 2000))
    layout = tiling.windows(side, 7, window)
    starts = [span.start for span in layout.rows]
    steps = np.diff(starts)
    assert starts[0] == 0 and starts[-1] + window == layout.padded[0] == max(side, window)
    assert (window - steps >= layout.overlap).all() and len(set(steps)) <= 2
    assert [span.stop for span in layout.rows] == [*starts[1:], layout.padded[0]]


def test_slabs_come_before_the_rest_is_read():
    layout, read = tiling.windows(100, 20, 16), []
    image = np.zeros((100, 20, 1), np.float32)

    def rows(first, last):
        read.append(last)
        return image[first:last]

    tops = []
    for slab in tiling.slabs(tiling.inputs(rows, layout), places, layout):
        tops.append(len(slab))
        assert read[-1] <= sum(tops) + 2 * 16
    assert sum(tops) == 100 and len(tops) == len(layout.rows) > 10


def test_an_overlap_as_large_as_the_window_is_refused():
    with pytest.raises(ValueError, match="16 px is not within windows of 16 px"):
        tiling.windows(50, 50, 16, 16)
