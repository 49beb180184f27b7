"""Shape checks: what a wrong shape says, and that layers and networks make them."""

import re

import jax
import jax.numpy as jnp
import pytest

from feedseg.models.layers import shapes


def message(**arrays) -> str:
    with pytest.raises(ValueError) as error:
        shapes.check("gate", **arrays)
    return str(error.value)


def zeros(*shape: int) -> jax.Array:
    return jnp.zeros(shape)


def test_what_fits():
    shapes.check("gate", g=(zeros(2, 3, 4, 5), "N h w G"), x=(zeros(2, 6, 8, 1), "N 2h 2w C"))
    shapes.check("norm", x=(zeros(2, 7, 3), "... C"), scale=(zeros(3), "C"))
    shapes.check("texture", x=(zeros(2, 4, 4, 1), "N H W 1"))


def test_the_message_names_array_shape_and_expectation():
    assert message(g=(zeros(2, 3), "N h w G")) == (
        "gate: g has shape [2, 3], expected [N, h, w, G]"
    )
    arrays = dict(g=(zeros(2, 3, 4, 5), "N h w G"), x=(zeros(2, 6, 9, 1), "N 2h 2w C"))
    assert message(**arrays) == (
        "gate: x has shape [2, 6, 9, 1], expected [N, 2h, 2w, C] with N = 2, h = 3, w = 4"
    )
    assert message(x=(zeros(2, 3), "... C"), scale=(zeros(4), "C")) == (
        "gate: scale has shape [4], expected [C] with C = 3"
    )
    assert message(x=(zeros(4, 2), "N 1")) == "gate: x has shape [4, 2], expected [N, 1]"


def test_traced_arrays_are_checked_too():
    with pytest.raises(ValueError, match=re.escape("x has shape [2, 3], expected [N, H, W, C]")):
        jax.eval_shape(lambda x: shapes.check("layer", x=(x, "N H W C")), zeros(2, 3))


def test_images():
    shapes.check_image(zeros(1, 16, 24, 1), 8)
    with pytest.raises(ValueError, match=r"network: image has shape \[16, 16\], expected \[N, H"):
        shapes.check_image(zeros(16, 16), 8)
    with pytest.raises(ValueError, match="33 x 3 must be multiples of 8; nearest: 32 x 8"):
        shapes.check_image(zeros(1, 33, 3, 1), 8)
