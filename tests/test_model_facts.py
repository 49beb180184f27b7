"""Numbers that a network must have: parameters, running statistics, how far it sees."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest
from networks import FAST_COMPILE, build, shapes_of

from feedseg import models

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


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("name", "changes", "classes", "parameters", "statistics"), COUNTS)
def test_parameter_counts(name, changes, classes, parameters, statistics):
    model = build(name, classes, **changes)
    _, variables = shapes_of(model, (1, model.stride, model.stride, 1))
    assert count(variables["params"]) == parameters
    assert count(variables["batch_stats"]) == statistics


# Halo -------------------------------------------------------------------------------------------

HALO = {
    "unet": (dict(filters=(2,) * 5), dict(filters=(2,) * 3, extra_conv=True), dict(filters=(2, 2))),
    "kato_unet": (dict(filters=(2,) * 5), dict(filters=(2,) * 3)),
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
    model = build(name, **changes)
    assert model.halo - model.stride < reach(model) <= model.halo
