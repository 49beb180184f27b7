"""Numbers that a network must have: parameters, running statistics, how far it sees."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from feedseg import models
from feedseg.models.layers import convolve
from tests.support.networks import FAST_COMPILE, build, shapes_of

# Parameter counts -------------------------------------------------------------------------------

UNET64 = dict(filters=(64, 128, 256, 512, 1024))
COUNTS = [  # network, changes, classes, parameters, running statistics
    ("unet", {}, 2, 487_154, 1_472),
    ("unet", {}, 3, 487_163, 1_472),
    ("unet", {}, 4, 487_172, 1_472),
    ("unet", dict(extra_conv=True), 2, 487_154 + 600, 1_488),
    ("unet", dict(extra_conv=True), 4, 487_172 + 600, 1_488),
    ("unet", dict(UNET64, conv_bias=False, dropout=0.0), 2, 31_036_546, 11_776),
    ("unet", UNET64, 2, 31_042_434, 11_776),
    ("aep_net", {}, 2, 853_826, 1_536),
    ("aep_net", {}, 3, 853_843, 1_536),
    ("aep_net", {}, 4, 853_860, 1_536),
    ("kato_unet", {}, 2, 41_880_130, 17_664),
    ("kato_unet", {}, 3, 41_880_195, 17_664),
    ("kato_unet", {}, 4, 41_880_260, 17_664),
    ("unet_plus_plus", {}, 2, 9_162_786, 7_296),
    ("unet_plus_plus", {}, 3, 9_162_819, 7_296),
    ("unet_plus_plus", {}, 4, 9_162_852, 7_296),
    ("unet_plus_plus", dict(deep_supervision=True), 2, 9_162_984, 7_296),
    ("unet_plus_plus", dict(deep_supervision=True), 4, 9_163_248, 7_296),
    ("unet_plus_plus", dict(form="keras"), 3, 9_041_667, 0),
    ("unet_plus_plus", dict(form="keras", deep_supervision=True), 3, 9_041_964, 0),
    ("unet_plus_plus", dict(UNET64, form="zju", deep_supervision=True), 2, 47_175_240, 7_936),
    ("unet_plus_plus", dict(UNET64, form="zju", deep_supervision=True), 3, 47_175_500, 7_936),
    ("attention_unet", {}, 2, 34_877_486, 15_624),
    ("attention_unet", {}, 3, 34_877_551, 15_624),
    ("attention_unet", {}, 4, 34_877_616, 15_624),
    # not published: as the layers of the 3-D code add up with 2 dimensions
    ("attention_unet", dict(form="oktay"), 2, 2_205_429, 4_352),
    ("attention_unet", dict(form="oktay", deep_supervision=True), 3, 2_206_166, 4_352),
    ("attention_unet", dict(form="oktay", deep_supervision=True, gates=2), 4, 2_379_594, 4_800),
    ("unet3plus", {}, 2, 26_973_506, 13_056),
    ("unet3plus", {}, 3, 26_976_387, 13_056),
    ("unet3plus", {}, 4, 26_979_268, 13_056),
    ("unet3plus", dict(deep_supervision=True), 2, 27_009_226, 13_056),
    ("unet3plus", dict(deep_supervision=True), 3, 27_029_967, 13_056),
    ("unet3plus", dict(deep_supervision=True), 4, 27_050_708, 13_056),
    ("aep", dict(penultimate=16), 2, 1_707_656, 3_072),
    ("aep", dict(penultimate=16), 3, 1_707_691, 3_072),
    ("aep", dict(penultimate=16), 4, 1_707_726, 3_072),
]
AEP_TOTALS = {  # classes: parameters with 1, 2, ... 5 filters per class
    2: (1_705_570, 1_705_870, 1_706_170, 1_706_470, 1_706_770),
    3: (1_705_741, 1_706_194, 1_706_647, 1_707_100, 1_707_553),
    4: (1_705_914, 1_706_522, 1_707_130, 1_707_738, 1_708_346),
}
COUNTS += [
    # `joint` has the parameters of `per_call` and is traced once instead of up to 20 times
    ("aep", dict(multiplier=m, net2_bn="joint"), classes, total, 3_040 + 2 * m * classes)
    for classes, totals in AEP_TOTALS.items()
    for m, total in enumerate(totals, 1)
]
FEEDBACK_TOTALS = {  # unit, layout: parameters with 2 classes, and what every other class adds
    ("convlstm", "none"): (489_314, 81),
    ("convlstm", "code10"): (2_418_098, 297),
    ("convlstm", "paper6_levels"): (2_368_994, 297),
    ("convlstm", "paper6_top"): (2_349_938, 297),
    ("convlstm", "a"): (492_074, 297),
    ("convlstm", "A"): (496_130, 297),
    ("convlstm", "b"): (502_034, 81),
    ("convlstm", "B"): (518_210, 81),
    ("convlstm", "c"): (2_333_282, 81),
    ("convlstm", "C"): (2_333_282, 81),
    ("convlstm", "d"): (505_490, 81),
    ("convlstm", "D"): (528_578, 81),
    ("convlstm", "e"): (493_370, 81),
    ("convlstm", "E"): (499_154, 81),
    ("convlstm", "abde"): (525_026, 297),
    ("convlstm", "ABDE"): (574_130, 297),
    ("rcl_shared", "paper6_levels"): (589_970, 17),
    ("rcl_shared", "code10"): (588_098, 17),
    ("rcl_separate", "paper6_levels"): (789_986, 81),
    ("rcl_separate", "code10"): (795_746, 81),
}
COUNTS += [
    ("feedback_unet", dict(unit=unit, layout=layout), classes, base + (classes - 2) * more, 2_976)
    for (unit, layout), (base, more) in FEEDBACK_TOTALS.items()
    for classes in (
        (2, 3, 4) if layout in ("none", "paper6_levels") else (2 + len(layout) % 2 * 2,)
    )
]
ATTENTION_TOTALS = {  # connection: parameters with 2 classes, running statistics, 8 and 64 wide
    "add": ((487_155, 1_472), (31_042_435, 11_776)),
    "conv1x1": ((487_227, 1_472), (31_046_595, 11_776)),
    "se": ((487_171, 1_472), (31_042_947, 11_776)),
    "light": ((487_755, 1_488), (31_079_491, 11_904)),
    "source_target": ((487_277, 1_500), (31_047_891, 12_000)),
    "self": ((487_277, 1_500), (31_047_891, 12_000)),
}
COUNTS += [
    ("feedback_attention", dict(connection=kind), classes, total + 9 * (classes - 2), statistics)
    for kind, ((total, statistics), _) in ATTENTION_TOTALS.items()
    for classes in ((2, 3, 4) if kind == "self" else (4,))
]
COUNTS += [
    ("feedback_attention", dict(UNET64, connection=kind), 3, total + 65, statistics)
    for kind, (_, (total, statistics)) in ATTENTION_TOTALS.items()
]
COUNTS += [("feedback_attention", dict(connection="light", light_convs=2), 2, 488_355, 1_504)]
RU_NET = {  # changes, parameters with 2 classes, what every other class adds, statistics
    "shared": ({}, 558_754, 9, 1_472),
    "separate": (dict(kernel="separate"), 977_906, 9, 1_472),
    "unshared": (dict(kernel="unshared_per_step"), 1_544_674, 9, 4_416),
    "own normalizations": (dict(pass_norms="separate"), 561_698, 9, 4_416),
    "lee": (dict(UNET64, up="nearest"), 39_091_330, 65, 13_696),
    "r2u": (dict(UNET64, up="nearest", residual=True), 39_091_330, 65, 13_696),
    "wide separate": (dict(UNET64, up="nearest", kernel="separate"), 65_934_082, 65, 13_696),
}
COUNTS += [
    ("ru_net", changes, classes, total + (classes - 2) * more, statistics)
    for changes, total, more, statistics in RU_NET.values()
    for classes in (2, 3, 4)
]
COUNTS += [
    ("unet_original", {}, 2, 31_030_658, 0),
    ("unet_original", {}, 3, 31_030_723, 0),
    ("unet_original", {}, 4, 31_030_788, 0),
    ("blood_unet", {}, 2, 34_165_505, 0),
    ("blood_unet", dict(extra_conv=False), 2, 31_031_105, 0),
    ("blood_unet", dict(filters=(16, 32, 64, 128, 256)), 2, 2_137_025, 0),
]
COUNTS += [
    ("saunet", {}, 2, 31_871_439, 90_748),
    ("saunet", {}, 3, 31_871_472, 90_748),
    ("saunet", {}, 4, 31_871_505, 90_748),
    ("saunet", dict(canny_source="as_released"), 2, 31_871_439, 90_748),
    ("sa_unet", {}, 2, 537_028, 1_408),
    ("sa_unet", {}, 3, 537_045, 1_408),
    ("sa_unet", {}, 4, 537_062, 1_408),
    ("sa_unet", dict(attention=False), 2, 536_930, 1_408),
    ("sa_unet", dict(attention=False), 3, 536_947, 1_408),
    ("sa_unet", dict(attention=False), 4, 536_964, 1_408),
]


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("name", "changes", "classes", "parameters", "statistics"), COUNTS)
def test_parameter_counts(name, changes, classes, parameters, statistics):
    model = build(name, classes, **changes)
    image = jnp.zeros((1, model.stride, model.stride, 1))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    assert count(variables["params"]) == parameters
    assert count(variables.get("batch_stats", {})) == statistics


# Halo -------------------------------------------------------------------------------------------

HALO = {
    "unet": (dict(filters=(2,) * 5), dict(filters=(2,) * 3, extra_conv=True), dict(filters=(2, 2))),
    "kato_unet": (dict(filters=(2,) * 5), dict(filters=(2,) * 3)),
    "ru_net": (
        dict(filters=(2,) * 4),
        dict(filters=(2,) * 3, t=1, kernel="separate"),
        dict(filters=(2,) * 3, kernel="unshared_per_step", up="nearest"),
    ),
    "unet_original": (dict(filters=(2,) * 5), dict(filters=(2,) * 3)),
    "blood_unet": (dict(filters=(2,) * 5), dict(filters=(2,) * 3, extra_conv=False)),
    "unet_plus_plus": (),  # bilinear weights of 0 would spread the infinity: test_unet_plus_plus
    "attention_unet": (),
    "unet3plus": (),
    "saunet": (),  # every pixel sees all others; without its channel attention: test_saunet
    "sa_unet": (dict(filters=(2,) * 4), dict(filters=(2,) * 3, attention=False)),
    # a ConvLSTM's gates would hide the infinity: its gradients are looked at below
    "feedback_unet": (
        dict(filters=(2,) * 3, layout="none"),
        dict(filters=(2,) * 3, layout="none", rounds=3),
        dict(filters=(2,) * 3, layout="abcde", unit="rcl_shared"),
    ),
    "feedback_attention": (
        dict(filters=(2,) * 3, connection="add"),
        dict(filters=(2,) * 3, connection="light", light_convs=2, location="one_conv"),
        dict(filters=(2,) * 3, connection="none", rounds=3),
    ),
}


def adding(model, image_shape: tuple[int, ...]) -> dict:
    """Variables with which every layer adds up positive numbers: no ReLU is dead, nothing cancels.

    The output is then infinite exactly where it depends on an infinite input.
    """

    def draw(path, leaf):
        weight = path[-1].key in ("kernel", "scale", "var", "weights")
        return np.full(leaf.shape, 0.01 if weight else 0.0, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, image_shape)[1])


def reach(model) -> int:
    """Largest distance in px between an input pixel and an output pixel that depends on it.

    Measured on strips with one infinite column, at every position within a stride.
    """
    middle, strip = 2 * model.halo, np.arange(model.stride)
    strips = np.ones((model.stride, model.stride, 2 * middle + model.stride, 1), np.float32)
    strips[strip, :, middle + strip] = np.inf
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False)[0], compiler_options=FAST_COMPILE)
    changed = np.isinf(forward(adding(model, strips.shape), strips)).any((1, 3))
    assert changed[strip, middle + strip].all()
    where, column = np.nonzero(changed)
    return int(abs(column - (middle + where)).max())


@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, changes) for name in models.names() for changes in HALO.get(name, ({},))],
)
def test_halo_is_the_reach_rounded_up_to_the_stride(name, changes, monkeypatch):
    monkeypatch.setattr(nn, "sigmoid", lambda x: x)  # AEP's would hide the infinity
    monkeypatch.setattr(jax.nn, "softmax", lambda x: x)  # and that between rounds
    # two pixels at once multiply the infinity by 0 too
    monkeypatch.setattr(convolve, "_choose", lambda *_: convolve.Forms())
    model = build(name, **changes)
    assert model.halo - model.stride < reach(model) <= model.halo


FLAT = dict(filters=(2,) * 2)
SECOND = common.model("feedback_unet", **FLAT, rounds=1, layout="none")
BY_GRADIENT = [
    ("feedback_unet", dict(FLAT, layout="ace")),
    ("feedback_attention", dict(FLAT, connection="conv1x1", round1_grad="flow")),
    ("aep", dict(network2=SECOND, net2_bn="joint")),
]


def reach_of_gradients(model) -> int:
    """As `reach`, by input columns with a gradient: for gates that would hide an infinity."""
    middle = 2 * model.halo
    shape = (4, 2 * model.stride, 2 * middle + model.stride, 1)
    image = np.random.default_rng(0).random(shape, np.float32)  # maxima at any place of a pooling

    def draw(path, leaf):  # means of positive numbers: nothing cancels, no ReLU is dead
        kind = path[-1].key
        kernel = 1 / math.prod(leaf.shape[:-1]) if "kernel" in kind else 0
        return np.full(leaf.shape, kernel or kind in ("scale", "var", "weights"), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes_of(model, shape)[1])

    def column(image, place):
        logits = model.apply(variables, image, train=False)[0]
        return jax.lax.dynamic_slice_in_dim(logits, place, 1, 2).sum()

    gradient = jax.jit(jax.grad(column), compiler_options=FAST_COMPILE)
    places = range(middle, middle + model.stride)
    seen = [np.flatnonzero(np.asarray(gradient(image, at)).any((0, 1, 3))) - at for at in places]
    return int(max(abs(columns).max() for columns in seen))


@pytest.mark.parametrize(("name", "changes"), BY_GRADIENT)
def test_halo_is_the_reach_of_gradients_and_hardly_more(name, changes, monkeypatch):
    """Where rounds or networks follow one another, each counts its own rounding to the stride."""
    monkeypatch.setattr(jax.nn, "softmax", lambda x: x)  # of equal logits, it has no gradient
    model = build(name, **changes)
    assert not getattr(model, "whole_image", False)
    assert model.halo - 2 * model.stride < reach_of_gradients(model) <= model.halo


def test_every_network_is_measured_or_blended():
    """Those measured elsewhere are named there; what depends on the whole window needs no halo."""
    elsewhere = {"unet_plus_plus", "attention_unet", "unet3plus", "saunet"}
    assert {name for name, variants in HALO.items() if not variants} == elsewhere
    assert set(HALO) <= set(models.names())
