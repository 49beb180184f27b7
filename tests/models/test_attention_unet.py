"""Attention gates and Attention U-Net against a plain NumPy reading of their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.layers.attention_gate import GridGate, GridGates, SameSizeGate
from feedseg.runtime.errors import UserError
from tests.models.test_unet_plus_plus import (
    Layers,
    assert_near,
    bilinear,
    check_network,
    initial,
    nearest,
    pool,
    random_image,
)
from tests.support.layer_checks import both
from tests.support.networks import build, finite_reach, random_variables, shapes_of


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expected_same_size(layers: Layers, x, g, name: str = ""):
    def project(y, which):
        return layers.norm(layers.conv(y, f"{name}{which}_conv"), f"{name}{which}_norm")

    joined = np.maximum(project(g, "gating") + project(x, "skip"), 0)
    gate = sigmoid(project(joined, "psi"))
    return gate * x, gate[..., 0]


def expected_grid(layers: Layers, x, g, name: str = ""):
    joined = np.maximum(layers.conv(x, f"{name}theta") + layers.conv(g, f"{name}phi"), 0)
    gate = bilinear(sigmoid(layers.conv(joined, f"{name}psi")), 2, False)
    return layers.conv_norm(gate * x, f"{name}output"), gate[..., 0]


def expected_grids(gates: int):
    def fused(layers: Layers, x, g, name: str = ""):
        parts = [expected_grid(layers, x, g, f"{name}gate{k}/") for k in range(1, gates + 1)]
        joined = np.concatenate([y for y, _ in parts], -1)
        return layers.unit(joined, f"{name}fuse"), np.stack([gate for _, gate in parts])

    return fused


GATES = {
    "same size": (SameSizeGate(2, 0.9, 1e-5), (2, 8, 12, 3), expected_same_size),
    "grid": (GridGate(0.9, 1e-5), (2, 4, 6, 3), expected_grid),
    "one grid": (GridGates(1, 0.9, 1e-5), (2, 4, 6, 3), expected_grids(1)),
    "two grids": (GridGates(2, 0.9, 1e-5), (2, 4, 6, 3), expected_grids(2)),
}


def random_gate(kind: str):
    """(gate, variables, skip, gating signal), gates well away from 1/2."""
    gate, shape, _ = GATES[kind]
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 8, 12, 4)).astype(np.float32)
    g = rng.normal(size=shape).astype(np.float32)
    shapes = jax.eval_shape(lambda: gate.init(jax.random.key(0), x, g, train=False))

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        if path[-1].key in ("scale", "var"):
            value = 0.5 + np.abs(value)
        return jnp.asarray(value, jnp.float32)

    return gate, jax.tree_util.tree_map_with_path(draw, shapes), x, g


@both
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_gate_equals_its_equation(kind, train, run):
    gate, variables, x, g = random_gate(kind)

    def forward(variables, x, g):
        if train:
            return gate.apply(variables, x, g, train=True, mutable=["batch_stats"])[0]
        return gate.apply(variables, x, g, train=False)

    gated, shown = run(forward)(variables, x, g)
    wide = (a.astype(np.float64) for a in (x, g))
    wanted, wanted_shown = GATES[kind][2](Layers(variables, train), *wide)
    assert_near(gated, wanted)
    assert_near(np.asarray(shown), wanted_shown)
    assert wanted_shown.min() < 0.3 and wanted_shown.max() > 0.7


def test_a_closed_gate_lets_nothing_through():
    gate, variables, x, g = random_gate("same size")
    psi = variables["params"]["psi_norm"]
    psi["bias"], psi["scale"] = jnp.full(1, -100.0), jnp.zeros(1)
    gated, shown = gate.apply(variables, x, g, train=False)
    np.testing.assert_allclose(gated, 0, atol=1e-30)
    np.testing.assert_allclose(shown, 0, atol=1e-30)


# Networks ----------------------------------------------------------------------------------------


def expected_of(form: str, levels: int, gates: int, deep_supervision: bool):
    def step_up(layers: Layers, x, skip, gating, level: int):
        """up, gated skip, maps [L, N, h, w]"""
        if form == "lee":
            up = layers.unit(nearest(x, 2), f"dec{level}_up")
            skip, shown = expected_same_size(layers, skip, up, f"gate{level}/")
            return up, skip, shown[None]
        up = bilinear(x, 2, False)
        if level == 1:
            return up, skip, []
        g = gating if level == levels - 1 else x
        skip, shown = expected_grids(gates)(layers, skip, g, f"gate{level}/")
        return up, skip, shown

    def network(layers: Layers, image):
        x, skips = image, {}
        for level in range(1, levels):
            skips[level] = layers.pair(x, f"enc{level}")
            x = pool(skips[level])
        x = layers.pair(x, "bottom")
        gating = layers.unit(x, "gating") if form == "oktay" else None
        shown, heads = [], []
        for level in range(levels - 1, 0, -1):
            up, skip, maps = step_up(layers, x, skips[level], gating, level)
            x = layers.pair(np.concatenate([skip, up], -1), f"dec{level}")
            shown += [nearest(each, 2 ** (level - 1)) for each in maps]
            if deep_supervision:
                head = layers.conv(x, f"head{level}")
                heads.insert(0, bilinear(head, 2 ** (level - 1), False) if level > 1 else head)
        out = {"attention": np.stack(shown)}
        if deep_supervision:
            x, out["heads"] = np.concatenate(heads, -1), np.stack(heads)
        return layers.conv(x, "classifier"), out

    return network


@both
@pytest.mark.parametrize(
    ("form", "gates", "deep_supervision"),
    [("lee", 1, False), ("oktay", 1, False), ("oktay", 1, True), ("oktay", 2, True)],
)
def test_network_equals_its_equations(form, gates, deep_supervision, run):
    filters = (3, 4, 5, 6) if run is jax.jit else (3, 4, 5)
    model = build(
        "attention_unet",
        3,
        form=form,
        filters=filters,
        gates=gates,
        deep_supervision=deep_supervision,
    )
    check_network(model, expected_of(form, len(filters), gates, deep_supervision), run)


def test_the_gates_maps():
    """One per gated skip and gate, deepest level first, all of the image's size, in (0, 1)."""
    image = random_image(2, 16, 24, 1)
    for changes, count in ((dict(form="lee"), 3), (dict(form="oktay", gates=2), 4)):
        model = build("attention_unet", 2, filters=(2, 3, 4, 5), **changes)
        look = jax.jit(lambda v, m=model: m.apply(v, image, train=False)[1]["attention"])
        shown = np.asarray(look(random_variables(model, image.shape)))
        assert shown.shape == (count, 2, 16, 24)
        assert shown.min() > 0 and shown.max() < 1
        blocks = shown[0].reshape(2, 4, 4, 6, 4)  # the deepest skip has 4 x 6 pixels
        assert np.ptp(blocks, (2, 4)).max() == 0 and np.ptp(blocks) > 0


def test_the_top_skip_of_oktay_is_not_gated():
    for levels in (2, 3):
        model = build("attention_unet", 2, form="oktay", filters=(2,) * levels)
        (_, out), variables = shapes_of(model, (1, 8, 8, 1))
        gates = {name for name in variables["params"] if name.startswith("gate")}
        assert gates == {f"gate{level}" for level in range(2, levels)}
        assert ("attention" in out) == (levels > 2)


@pytest.mark.parametrize("form", ["lee", "oktay"])
def test_no_filters_means_those_of_the_form(form):
    widths = {"lee": (64, 128, 256, 512, 1024), "oktay": (16, 32, 64, 128, 256)}
    assert build("attention_unet", form=form).widths == widths[form]
    assert build("attention_unet", form=form, filters=(4, 5)).widths == (4, 5)


def test_initial_numbers():
    """Oktay's scales are spread around 1 and its kernels are normal, Lee's are PyTorch's."""
    widths = dict(filters=(32, 64, 64))
    oktay = build("attention_unet", form="oktay", **widths)
    theta, scale = initial(oktay, "gate2/gate1/theta/kernel dec1_conv1/norm/scale")
    assert theta.std() == pytest.approx((2 / (4 * 64)) ** 0.5, rel=0.03)
    assert scale.mean() == pytest.approx(1, abs=0.02) and 0.01 < scale.std() < 0.03
    gate = random_variables(oktay, (1, 4, 4, 1))["params"]["gate2"]["gate1"]
    assert set(gate["theta"]) == {"kernel"} and set(gate["phi"]) == {"kernel", "bias"}
    names = "dec1_conv1/conv/kernel dec1_conv1/norm/scale"
    kernel, scale = initial(build("attention_unet", **widths), names)
    assert 0.95 < np.abs(kernel).max() * (9 * 64) ** 0.5 <= 1
    np.testing.assert_array_equal(scale, 1)


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("form", ["lee", "oktay"])
def test_halo(form, levels):
    model = build("attention_unet", form=form, filters=(2,) * levels)
    assert model.halo - model.stride < finite_reach(model) <= model.halo


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(form="both"), "choose lee or oktay"),
        (dict(form="oktay", gates=3), "from 1 to 2"),
        (dict(gates=2), "choose form='oktay'"),
        (dict(deep_supervision=True), "choose form='oktay'"),
        (dict(filters=(4,)), "2 levels"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises((ValueError, UserError), match=message):
        model = build("attention_unet", **changes)
        model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), train=False)
