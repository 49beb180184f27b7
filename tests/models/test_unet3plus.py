"""UNet 3+ against a plain NumPy reading of its equations, in float64 with the same weights."""

import jax
import numpy as np
import pytest

from tests.models.test_unet_plus_plus import (
    Layers,
    bilinear,
    check_network,
    initial,
    pool,
    random_image,
)
from tests.support.layer_checks import both
from tests.support.networks import build, finite_reach, random_variables


def expected_of(levels: int, deep_supervision: bool):
    def decode(layers: Layers, encoder, decoder, level: int):
        side, joined = encoder[level].shape[1], []
        for source in range(1, levels + 1):
            x = encoder[source] if source <= level else decoder[source]
            if source < level:
                x = pool(x, x.shape[1] // side)
            elif source > level:
                x = bilinear(x, side // x.shape[1], False)
            joined.append(layers.unit(x, f"dec{level}_from{source}"))
        return layers.unit(np.concatenate(joined, -1), f"dec{level}_fuse")

    def network(layers: Layers, image):
        encoder, x = {}, image
        for level in range(1, levels + 1):
            x = pool(x) if level > 1 else x
            x = layers.pair(x, f"enc{level}" if level < levels else "bottom")
            encoder[level] = x
        decoder = {levels: x}
        for level in range(levels - 1, 0, -1):
            decoder[level] = decode(layers, encoder, decoder, level)
        logits = layers.conv(decoder[1], "classifier")
        if not deep_supervision:
            return logits, {}
        deeper = [
            bilinear(layers.conv(decoder[level], f"head{level}"), 2 ** (level - 1), False)
            for level in range(2, levels + 1)
        ]
        return logits, {"heads": np.stack([logits, *deeper])}

    return network


@both
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_network_equals_its_equations(deep_supervision, run):
    filters = (3, 4, 5, 6) if run is jax.jit else (3, 4, 5)
    model = build(
        "unet3plus", 3, filters=filters, skip_channels=2, deep_supervision=deep_supervision
    )
    check_network(model, expected_of(len(filters), deep_supervision), run)


def test_channels_of_the_decoder():
    """Every level takes the same number of channels from every source."""
    model = build("unet3plus", filters=(3, 4, 5), skip_channels=2)
    params = random_variables(model, (1, 4, 4, 1))["params"]
    for level in (1, 2):
        assert params[f"dec{level}_fuse"]["conv"]["kernel"].shape == (3, 3, 6, 6)
    inputs = [params[f"dec1_from{s}"]["conv"]["kernel"].shape[2:] for s in (1, 2, 3)]
    assert inputs == [(3, 2), (6, 2), (5, 2)]
    assert params["classifier"]["kernel"].shape == (3, 3, 6, 2)


def test_initial_numbers():
    """Kernels N(0, 2 / fan_in) and not truncated, scales N(1, 0.02), biases 0."""
    names = "dec1_fuse/conv/kernel dec1_fuse/norm/scale dec1_fuse/conv/bias classifier/bias"
    model = build("unet3plus", filters=(32, 64), skip_channels=64)
    kernel, scale, bias, classifier_bias = initial(model, names)
    assert kernel.std() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert np.abs(kernel).max() > 3 * kernel.std()
    assert scale.mean() == pytest.approx(1, abs=0.01)
    assert scale.std() == pytest.approx(0.02, rel=0.3)
    assert not bias.any() and not classifier_bias.any()


def test_a_side_that_the_pooling_would_round_up_is_refused():
    model = build("unet3plus", filters=(2, 3, 4), skip_channels=2)
    variables = random_variables(model, (1, 8, 8, 1))
    with pytest.raises(ValueError, match="multiples of 4"):
        model.apply(variables, random_image(1, 8, 6, 1), train=False)


@pytest.mark.parametrize("levels", [2, 4])
def test_halo(levels):
    model = build("unet3plus", filters=(2,) * levels, skip_channels=2)
    assert model.halo - model.stride < finite_reach(model) <= model.halo
