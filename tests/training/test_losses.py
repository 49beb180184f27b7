"""Loss terms against numbers worked out by hand; void pixels; class weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.runtime.errors import UserError
from feedseg.training import losses

LOG3 = np.log(3.0)
# Two pixels of two classes: probabilities (1/2, 1/2) with truth 0 and (3/4, 1/4) with truth 1.
LOGITS = jnp.array([[[[0.0, 0.0], [LOG3, 0.0]]]])
LABELS = jnp.array([[[0, 1]]], jnp.uint8)
CROSS_ENTROPY = (np.log(2) + np.log(4)) / 2
DICE = 1 - ((2 * 0.5 + 1) / (1.25 + 1 + 1) + (2 * 0.25 + 1) / (0.75 + 1 + 1)) / 2
EVEN = jnp.ones(2)


def total(logits, labels, terms, weights=EVEN, jitted=True, **out):
    def compute(logits, out, labels):
        return losses.total_loss(losses.named_outputs(logits, out), labels, terms, weights)

    return (jax.jit(compute) if jitted else compute)(logits, out, labels)


def with_void(logits, labels, value):
    """One more pixel, with logits of `value` and no truth."""
    more = jnp.full((1, 1, 1, 2), value).at[..., 1].add(5.0)
    void = jnp.full((1, 1, 1), 255, jnp.uint8)
    return jnp.concatenate([logits, more], 2), jnp.concatenate([labels, void], 2)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("kind, expected", [("cross_entropy", CROSS_ENTROPY), ("dice", DICE)])
def test_by_hand(kind, expected, jitted):
    value, parts = total(LOGITS, LABELS, {"final": {kind: 1.0}}, jitted=jitted)
    assert float(value) == pytest.approx(expected, abs=1e-6)
    assert float(parts[f"final/{kind}"]) == pytest.approx(expected, abs=1e-6)


def test_class_weights_by_hand():
    weights = jnp.array([1.0, 3.0])
    value, _ = total(LOGITS, LABELS, {"final": {"cross_entropy": 1.0}}, weights)
    assert float(value) == pytest.approx((np.log(2) + 3 * np.log(4)) / 2, abs=1e-6)
    value, _ = total(LOGITS, LABELS, {"final": {"dice": 1.0}}, weights)
    assert float(value) == pytest.approx(1 - (2 / 3.25 + 3 * 1.5 / 2.75) / 4, abs=1e-6)


def test_border_weights_add_to_the_class_weights_by_hand():
    maps = {"border": jnp.array([[[0.0, 10.0]]])}
    terms = {"final": {"border_cross_entropy": 1.0}}
    weights = jnp.array([2.0, 3.0])
    value, _ = losses.total_loss({"final": LOGITS}, LABELS, terms, weights, maps)
    assert float(value) == pytest.approx((2 * np.log(2) + 13 * np.log(4)) / 2, abs=1e-5)


def test_grey_masks_by_hand():
    """Probabilities of class 1 of 1/2 and 1/4, gray values 1 and 0.6."""
    maps = {"mask": jnp.array([[[1.0, 0.6]]])}
    terms = {"final": {"mask_cross_entropy": 1.0}}
    value, _ = losses.total_loss({"final": LOGITS}, LABELS, terms, EVEN, maps)
    second = -0.6 * np.log(0.25) - 0.4 * np.log(0.75)
    assert float(value) == pytest.approx((np.log(2) + second) / 2, abs=1e-6)
    exact = {"mask": LABELS.astype(jnp.float32)}
    value, _ = losses.total_loss({"final": LOGITS}, LABELS, terms, EVEN, exact)
    assert float(value) == pytest.approx(CROSS_ENTROPY, abs=1e-6)  # the same as of two classes


def test_edges_are_those_of_the_distance_transform():
    """Within 2 px of a pixel of another class, whatever the classes."""
    from scipy.ndimage import distance_transform_edt

    labels = np.kron(np.random.default_rng(0).integers(0, 3, (6, 5)), np.ones((6, 6), int))
    inside = [np.where(labels == c, distance_transform_edt(labels == c), 99) for c in range(3)]
    expected = (np.min(inside, 0) <= 2).astype(np.float32)
    found = losses.label_edges(jnp.asarray(labels[None], jnp.uint8))
    np.testing.assert_array_equal(found[0], expected)
    assert 0.2 < expected.mean() < 0.9


def test_void_has_no_edges_and_small_images_are_no_error():
    labels = jnp.array([[[0, 255, 255, 255, 1]]], jnp.uint8)
    assert not losses.label_edges(labels).any()
    assert not losses.label_edges(jnp.zeros((2, 1, 1), jnp.uint8)).any()


def test_edge_loss_by_hand():
    labels = jnp.array([[[0, 0, 0, 1, 255]]], jnp.uint8)  # edges at 1, 2 and 3
    z = jnp.array([0.0, LOG3, -LOG3, 0.0, 5.0])[None, None, :, None]
    outputs = {"final": jnp.zeros((1, 1, 5, 2)), "edge": z}
    value, parts = losses.total_loss(outputs, labels, {"edge": {"edge_cross_entropy": 2.0}}, EVEN)
    expected = (np.log(2) + np.log(4 / 3) + np.log(4) + np.log(2)) / 4
    assert float(parts["edge/edge_cross_entropy"]) == pytest.approx(expected, abs=1e-6)
    assert float(value) == pytest.approx(2 * expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "dice"])
@pytest.mark.parametrize("value", [0.0, 7.0, 1e30])
def test_void_pixels_change_neither_loss_nor_gradient(kind, value):
    logits, labels = with_void(LOGITS, LABELS, value)
    terms = {"final": {kind: 1.0}}
    np.testing.assert_allclose(
        total(logits, labels, terms)[0], total(LOGITS, LABELS, terms)[0], rtol=1e-6
    )
    gradient = jax.grad(lambda z: total(z, labels, terms)[0])(logits)
    alone = jax.grad(lambda z: total(z, LABELS, terms)[0])(LOGITS)
    np.testing.assert_allclose(gradient[:, :, :2], alone, rtol=1e-5, atol=1e-7)
    assert (gradient[:, :, 2] == 0).all()


@pytest.mark.parametrize("kind", ["cross_entropy", "dice"])
def test_nothing_but_void_gives_no_gradient(kind):
    labels = jnp.full((1, 1, 2), 255, jnp.uint8)
    value, gradient = jax.value_and_grad(lambda z: total(z, labels, {"final": {kind: 1.0}})[0])(
        LOGITS
    )
    assert float(value) == 0
    assert (gradient == 0).all()


def test_terms_are_weighted_and_reported_unweighted():
    terms = {"final": {"cross_entropy": 2.0, "dice": 0.5}, "first": {"dice": 3.0}}
    value, parts = total(LOGITS, LABELS, terms, first=2 * LOGITS)
    other, _ = total(2 * LOGITS, LABELS, {"final": {"dice": 1.0}})
    assert set(parts) == {"final/cross_entropy", "final/dice", "first/dice"}
    assert float(parts["first/dice"]) == pytest.approx(float(other), abs=1e-6)
    expected = 2 * CROSS_ENTROPY + 0.5 * DICE + 3 * float(other)
    assert float(value) == pytest.approx(expected, abs=1e-5)


def test_a_stack_takes_one_weight_or_one_per_map():
    members = jnp.stack([LOGITS, 2 * LOGITS, 3 * LOGITS])
    each = [float(total(m, LABELS, {"final": {"cross_entropy": 1.0}})[0]) for m in members]
    assert len(set(each)) == 3, "equal losses would hide a mix-up"
    one, parts = total(LOGITS, LABELS, {"members": {"cross_entropy": 0.5}}, members=members)
    assert float(one) == pytest.approx(0.5 * sum(each), abs=1e-6)
    assert [float(parts[f"members/{i}/cross_entropy"]) for i in range(3)] == pytest.approx(each)
    terms = {"members": {"cross_entropy": (0.0, 2.0, 3.0)}}
    several, _ = total(LOGITS, LABELS, terms, members=members)
    assert float(several) == pytest.approx(2 * each[1] + 3 * each[2], abs=1e-6)


def test_loss_is_float32_whatever_the_network_computes_in():
    value, parts = total(LOGITS.astype(jnp.bfloat16), LABELS, {"final": {"dice": 1.0}})
    assert value.dtype == parts["final/dice"].dtype == jnp.float32


def test_named_outputs_leave_out_what_holds_no_classes():
    named = losses.named_outputs(LOGITS, {"members": LOGITS[None], "filters": 1, "first": LOGITS})
    assert list(named) == ["final", "first", "members"]


BAD_TERMS = [
    ({"frist": {"dice": 1.0}}, r"loss\.terms\.frist: .* no such output; it has final, members"),
    ({"rounds": {"dice": 1.0}}, r"loss\.terms\.rounds: .* it has final, members"),
    ({"final": {"mse": 1.0}}, r"loss\.terms\.final\.mse: choose from cross_entropy, dice"),
    ({"final": {"dice": (1.0, 2.0)}}, r"loss\.terms\.final\.dice=\(1\.0, 2\.0\): .* per map"),
    ({"final": {"edge_cross_entropy": 1.0}}, "goes with the output edge, and only with it"),
    ({"final": {"border_cross_entropy": 1.0}}, r"border_cross_entropy: needs data\.border_class"),
    ({"final": {"mask_cross_entropy": 1.0}}, r"mask_cross_entropy: needs data\.mask_values"),
    ({"members": {"dice": (1.0, 2.0)}}, r"loss\.terms\.members\.dice=.*one weight per map"),
]


@pytest.mark.parametrize("terms, message", BAD_TERMS)
def test_terms_that_do_not_exist_are_named_with_the_choices(terms, message):
    available = losses.named_outputs(LOGITS, {"members": jnp.stack([LOGITS] * 3)})
    losses.check_terms({"final": {"dice": 1.0}, "members": {"dice": (1.0, 2.0, 3.0)}}, available)
    with pytest.raises(UserError, match=message):
        losses.check_terms(terms, available)


def test_border_weights_that_no_term_uses_are_refused():
    available = losses.named_outputs(LOGITS, {})
    with pytest.raises(UserError, match="border_class is set, but no loss term"):
        losses.check_terms({"final": {"dice": 1.0}}, available, ["border"])


def test_grey_masks_take_two_classes():
    available = losses.named_outputs(jnp.zeros((1, 1, 1, 3)), {})
    with pytest.raises(UserError, match="takes two classes, here are 3"):
        losses.check_terms({"final": {"mask_cross_entropy": 1.0}}, available, ["mask"])


# Classes 0, 1, 2 with 6, 3 and 1 pixels; class 3 has none; two pixels are void.
COUNTED = np.array([[0] * 6 + [1] * 3 + [2, 255, 255]], np.uint8)
ROOTS = np.sqrt(10 / (4 * np.array([6, 3, 1])))
WEIGHTS = [
    ("none", (1, 1, 1)),
    ("balanced", (10 / 24, 10 / 12, 10 / 4)),
    ("median", (3 / 6, 3 / 3, 3 / 1)),
    ("sqrt", ROOTS * 10 / (ROOTS @ [6, 3, 1])),
]


@pytest.mark.parametrize("kind, expected", WEIGHTS)
def test_class_weights_from_counts(kind, expected):
    weights = losses.class_weights(COUNTED, 4, kind)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [*expected, 1], rtol=1e-6)


def test_sqrt_weights_have_a_pixel_mean_of_one():
    weights = losses.class_weights(COUNTED, 4, "sqrt")
    assert weights[:3] @ [6, 3, 1] / 10 == pytest.approx(1, abs=1e-6)


def test_balanced_weights_give_every_class_the_same_share():
    labels = np.repeat(np.arange(3), (60, 30, 10)).astype(np.uint8)[None]
    weights = losses.class_weights(labels, 3, "balanced")
    np.testing.assert_allclose(weights * [60, 30, 10], 100 / 3, rtol=1e-6)


@pytest.mark.parametrize("kind", ["none", "balanced", "median", "sqrt"])
def test_class_weights_of_nothing_but_void_are_one(kind):
    assert (losses.class_weights(np.full((1, 4), 255, np.uint8), 2, kind) == 1).all()


def test_unknown_class_weight_names_the_choices():
    with pytest.raises(UserError, match=r"'balance': choose from none, balanced, median, sqrt"):
        losses.class_weights(COUNTED, 4, "balance")
