"""The original U-Net: sizes, values against NumPy, seamless overlap tiles."""

import jax
import numpy as np
import pytest
import tifffile
from scipy.signal import correlate

from configs import common
from feedseg.inference import tiling
from feedseg.inference.predict import predict
from feedseg.inference.trained import for_tiles, load_run, make_predictor
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.training import train
from tests.support import tiny
from tests.support.networks import build, random_variables, shapes_of

FIVE = dict(filters=(1,) * 5, border="none")
THREE = dict(filters=(2, 3, 4))  # stride 4, margin 20 px


def sides(side: int, **changes) -> tuple[int, ...]:
    model = build("unet_original", **FIVE, **changes)
    (logits, _), _ = shapes_of(model, (1, side, side, 1))
    return logits.shape


@pytest.mark.parametrize(("side", "result"), [(572, 388), (444, 260), (700, 516), (188, 4)])
def test_sizes_of_the_paper(side, result):
    assert sides(side) == (1, result, result, 2)


@pytest.mark.parametrize(
    ("side", "text"),
    [(571, "571: 556 or 572"), (573, "573: 572 or 588"), (187, "187: 188"), (32, "32: 188")],
)
def test_a_refused_size_names_the_nearest_legal_ones(side, text):
    with pytest.raises(ValueError, match=text):
        sides(side)


def test_every_size_is_legal_or_refused():
    model = build("unet_original", **FIVE)
    legal = {side for side in range(180, 260) if model.legal_sides(side)[0] == side}
    assert legal == {188, 204, 220, 236, 252}


def valid(x: np.ndarray, layer: dict) -> np.ndarray:
    """3x3 convolution without padding of [H, W, C], with ReLU."""
    kernel = np.asarray(layer["kernel"], np.float64)
    maps = [correlate(x, kernel[..., f], mode="valid")[..., 0] for f in range(kernel.shape[-1])]
    return np.maximum(np.stack(maps, -1) + np.asarray(layer["bias"]), 0)


def up(x: np.ndarray, layer: dict) -> np.ndarray:
    """2x2 stamps of every pixel, with ReLU."""
    kernel = np.asarray(layer["kernel"], np.float64)
    h, w, _ = x.shape
    result = np.zeros((2 * h, 2 * w, kernel.shape[-1]))
    for a in (0, 1):
        for b in (0, 1):
            result[a::2, b::2] = x @ kernel[a, b]
    return np.maximum(result + np.asarray(layer["bias"]), 0)


def reference(x: np.ndarray, p: dict) -> np.ndarray:
    """Two levels and the bottom, written out."""
    one = valid(valid(x, p["enc1_conv1"]), p["enc1_conv2"])
    half = one.reshape(one.shape[0] // 2, 2, one.shape[1] // 2, 2, -1).max((1, 3))
    low = valid(valid(half, p["bottom_conv1"]), p["bottom_conv2"])
    high = up(low, p["dec1_up"])
    cut = (one.shape[0] - high.shape[0]) // 2
    joined = np.concatenate([one[cut:-cut, cut:-cut], high], -1)
    top = valid(valid(joined, p["dec1_conv1"]), p["dec1_conv2"])
    return top @ np.asarray(p["classifier"]["kernel"])[0, 0] + np.asarray(p["classifier"]["bias"])


@pytest.mark.parametrize("border", ["none", "mirror"])
def test_values_against_numpy(border):
    model = build("unet_original", 3, filters=(3, 4), border=border)
    image = np.random.default_rng(0).random((1, 24, 28, 2)).astype(np.float32)
    variables = random_variables(model, image.shape)
    found = model.apply(variables, image, train=False)[0][0]
    around = ((0, 0), (0, 0), (0, 0))
    if border == "mirror":
        around = ((8, 12), (8, 12), (0, 0))
    expected = reference(np.pad(image[0], around, mode="reflect"), variables["params"])
    np.testing.assert_allclose(found, expected[: found.shape[0], : found.shape[1]], atol=1e-5)


def test_dropout_reaches_the_skip_and_the_bottom():
    model = build("unet_original", 2, **THREE)
    image = np.random.default_rng(0).random((1, 8, 8, 1)).astype(np.float32)
    variables = random_variables(model, image.shape)
    shown = model.apply(
        variables,
        image,
        train=True,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=lambda module, _: "dropout" in (module.name or ""),
    )[1]["intermediates"]
    assert set(shown) == {"enc2_dropout", "bottom_dropout"}


def trained(model, image_shape):
    facts = dict(
        channels=1,
        class_names=["a", "b"],
        class_colors=[[0, 0, 0], [255, 0, 0]],
        size_px=[64, 64],
        normalization="dtype_range",
        percentiles=[1, 99],
    )
    return make_predictor(model, random_variables(model, image_shape), "float32", facts)


@pytest.mark.parametrize("tile", [52, 64, 88])
def test_overlap_tiles_are_seamless(tile):
    """Tiles that see only true neighbors or the mirror equal the whole image with its mirror."""
    model = build("unet_original", 2, **THREE)
    image = np.random.default_rng(1).random((92, 72, 1)).astype(np.float32)
    whole = trained(model, (1, 92, 72, 1))
    tiled = for_tiles(whole)
    assert (tiled.margin, tiled.halo) == (20, 20)
    layout = tiling.plan(92, 72, tile, tiled.halo, tiled.stride, mirrored=True)
    assert layout.num_tiles > 1
    result = tiling.apply_tiled(image, tiled.apply, layout)
    np.testing.assert_allclose(result, whole.apply(image[None])[0], atol=1e-5)


def test_sides_that_are_no_multiple_are_equal_for_every_tile():
    model = build("unet_original", 2, **THREE)
    tiled = for_tiles(trained(model, (1, 64, 64, 1)))
    image = np.random.default_rng(2).random((45, 61, 1)).astype(np.float32)
    results = [
        tiling.apply_tiled(
            image, tiled.apply, tiling.plan(45, 61, tile, tiled.halo, tiled.stride, mirrored=True)
        )
        for tile in (52, 256)
    ]
    assert results[0].shape == (45, 61, 2)
    np.testing.assert_allclose(*results, atol=1e-5)


# A whole run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An epoch with border weights, scored over three rotations too."""
    config = tiny.get_config(train__epochs=1, evaluate__rotations=3)
    config.model = common.model("unet_original", filters=(3, 4))
    config.data.border_class = "membrane"
    with config.unlocked():
        config.loss.terms = dict(final=dict(border_cross_entropy=1.0))
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train.run(config, workdir, Log())


def test_a_run_scores_the_mean_over_rotations(run):
    metrics = run[1]["metrics"]
    assert set(metrics) == {"final", "rotations"}
    assert 0 <= metrics["rotations"]["miou"] <= 1
    assert metrics["rotations"] != metrics["final"]


def test_its_prediction_is_that_of_the_whole_image(run, tmp_path):
    workdir, _ = run
    image = np.random.default_rng(0).integers(0, 256, (60, 48), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    predict(workdir, tmp_path / "a.tif", tmp_path / "out", tile=40, probabilities="float32")
    found = tifffile.imread(tmp_path / "out" / "a_probabilities.tif")
    whole = load_run(workdir).apply(image[None, ..., None] / np.float32(255))[0]
    np.testing.assert_allclose(found, np.moveaxis(whole, -1, 0), atol=1e-5)


def test_rotations_are_averaged_and_their_number_checked(run, tmp_path):
    workdir, _ = run
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8))
    files = predict(workdir, tmp_path / "a.tif", tmp_path / "out", rotations=3)
    assert tifffile.imread(files[0]).shape == (20, 30)
    with pytest.raises(UserError, match="--rotations -1"):
        predict(workdir, tmp_path / "a.tif", tmp_path / "out2", rotations=-1)
