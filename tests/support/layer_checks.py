"""What the tests of the layers share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

both = pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["plain", "jitted"])


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def pull_back(function, arguments, dy):
    """Value and the gradients by all arguments for the output's gradient dy."""
    value, back = jax.vjp(function, *arguments)
    return value, *back(dy)
