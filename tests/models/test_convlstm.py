"""The ConvLSTM cell against a NumPy implementation of its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.feedback.convlstm import ConvLSTM, hard_sigmoid

GATES = {
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def cell(**changes) -> ConvLSTM:
    settings = dict(
        features=3,
        kernel_size=3,
        recurrent_activation="hard_sigmoid",
        unit_forget_bias=True,
        peephole=False,
    )
    return ConvLSTM(**{**settings, **changes})


def random_like(tree, seed: int = 0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape) * 0.5, tree)


def same_conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sum over the nine neighbors, zero outside the image."""
    n, h, w, _ = x.shape
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, h, w, kernel.shape[-1]))
    for a, b in np.ndindex(3, 3):
        y += x[:, a : a + h, b : b + w] @ kernel[a, b]
    return y


def reference(p: dict, x, c, h, gate) -> tuple:
    """The equations, gate by gate; c and h may be zero."""
    f = p["bias"].size // 4

    def part(index):
        columns = slice(index * f, (index + 1) * f)
        recurrent = same_conv(h, p["recurrent_kernel"][..., columns])
        return same_conv(x, p["kernel"][..., columns]) + recurrent + p["bias"][columns]

    i = gate(part(0) + p.get("peephole_i", 0) * c)
    forget = gate(part(1) + p.get("peephole_f", 0) * c)
    new = forget * c + i * np.tanh(part(2))
    o = gate(part(3) + p.get("peephole_o", 0) * new)
    return o * np.tanh(new), new


def data(seed: int = 1) -> tuple:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(2, 5, 4, channels)) for channels in (2, 3, 3))


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("activation", list(GATES))
def test_two_steps_are_those_of_the_equations(activation, peephole):
    layer = cell(recurrent_activation=activation, peephole=peephole)
    x, x2 = data()[0], data(2)[0]
    params = random_like(layer.init(jax.random.key(0), jnp.asarray(x, jnp.float32))["params"])
    zero = np.zeros((2, 5, 4, 3))
    h, c = reference(params, x, zero, zero, GATES[activation])
    wanted = reference(params, x2, c, h, GATES[activation])

    variables = {"params": jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)}
    first, state = layer.apply(variables, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(first, h, atol=1e-5)
    np.testing.assert_allclose(state[0], c, atol=1e-5)
    second, state = layer.apply(variables, jnp.asarray(x2, jnp.float32), state)
    np.testing.assert_allclose(second, wanted[0], atol=1e-5)
    np.testing.assert_allclose(state[0], wanted[1], atol=1e-5)
    np.testing.assert_array_equal(state[1], second)


def test_gradients_by_finite_differences():
    """Of every parameter, the input and the state, at a random point, in float64."""
    layer = cell(recurrent_activation="sigmoid", peephole=True)  # smooth everywhere
    x, c, h = data()
    with jax.enable_x64(True):
        params = layer.init(jax.random.key(0), jnp.asarray(x))["params"]
        point = (jax.tree.map(jnp.asarray, random_like(params)), *map(jnp.asarray, (x, c, h)))
        weights = jnp.asarray(np.random.default_rng(3).normal(size=h.shape))

        @jax.jit
        def value(p, x, c, h):
            out, (c, _) = layer.apply({"params": p}, x, (c, h))
            return jnp.sum(weights * out) + jnp.sum(c**2)

        gradients = jax.grad(value, argnums=(0, 1, 2, 3))(*point)
        for seed, (leaf, gradient) in enumerate(
            zip(jax.tree.leaves(point), jax.tree.leaves(gradients), strict=True)
        ):
            direction = np.random.default_rng(seed).normal(size=leaf.shape)
            ends = []
            for sign in (1, -1):
                moved = [
                    other + sign * 1e-5 * direction if other is leaf else other
                    for other in jax.tree.leaves(point)
                ]
                ends.append(float(value(*jax.tree.unflatten(jax.tree.structure(point), moved))))
            expected = float(np.sum(direction * np.asarray(gradient)))
            np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, expected, rtol=1e-6, atol=1e-8)


def test_hard_sigmoid_is_that_of_keras_2():
    np.testing.assert_allclose(hard_sigmoid(jnp.array([-3.0, -1, 0, 1, 3])), [0, 0.3, 0.5, 0.7, 1])


@pytest.mark.parametrize("unit", [True, False])
def test_start_and_size(unit):
    layer = cell(unit_forget_bias=unit)
    p = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))["params"]
    np.testing.assert_array_equal(p["bias"], [0] * 3 + [int(unit)] * 3 + [0] * 6)
    assert sum(leaf.size for leaf in jax.tree.leaves(p)) == 4 * 3 * (9 * (2 + 3) + 1)
    rows = p["recurrent_kernel"].reshape(-1, 12)
    np.testing.assert_allclose(rows.T @ rows, np.eye(12), atol=1e-5)  # orthogonal


def test_unknown_activation():
    with pytest.raises(ValueError, match="hard_sigmoid or sigmoid"):
        cell(recurrent_activation="relu").init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))


def test_the_gradient_of_hard_sigmoid_is_one_fifth_inside_and_0_outside():
    x = jnp.array([-4.0, -2.6, -2.4, 0, 2.4, 2.6, 4])
    slopes = jax.vmap(jax.grad(hard_sigmoid))(x)
    np.testing.assert_allclose(slopes, [0, 0, 0.2, 0.2, 0.2, 0, 0], rtol=1e-6)
