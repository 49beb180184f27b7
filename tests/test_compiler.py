"""Options of the compiler: by device, by size, and none that it does not know."""

import jax
import jax.numpy as jnp
import pytest

from feedseg import compiler


@pytest.fixture(autouse=True)
def fresh():
    compiler._known.cache_clear()
    yield
    compiler._known.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options are for the CPU")
def test_small_networks_get_an_option_that_the_compiler_takes():
    options = compiler.options(500_000)
    assert options
    program = jax.jit(lambda x: x @ x, compiler_options=options)
    assert float(program(jnp.full((2, 2), 3.0))[0, 0]) == 18.0


def test_wide_networks_get_none():
    assert compiler.options(30_000_000) is None


def test_other_devices_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.options(500_000) is None


def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "_PRODUCTS_ONLY", {"xla_no_such_option": "1"})
    assert compiler.options(500_000) is None
