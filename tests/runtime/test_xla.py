"""Options of the compiler: by device, by size, none that it does not know; where programs lie."""

import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from feedseg.runtime import xla


@pytest.fixture(autouse=True)
def fresh():
    xla._known.cache_clear()
    yield
    xla._known.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options are for the CPU")
def test_small_networks_get_an_option_that_the_compiler_takes():
    options = xla.options(500_000)
    assert options
    program = jax.jit(lambda x: x @ x, compiler_options=options)
    assert float(program(jnp.full((2, 2), 3.0))[0, 0]) == 18.0


def test_wide_networks_get_none():
    assert xla.options(30_000_000) is None


def test_other_devices_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert xla.options(500_000) is None


def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(xla, "_PRODUCTS_ONLY", {"xla_no_such_option": "1"})
    assert xla.options(500_000) is None


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Where programs are kept in the temporary folder `tmp_path`, None: nowhere."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir

    def found(setting: str | None = None) -> Path | None:
        jax.config.update("jax_compilation_cache_dir", setting)
        xla.keep_programs()
        folder = jax.config.jax_compilation_cache_dir
        return folder and Path(folder)

    yield found
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_for_this_user_alone(kept, tmp_path):
    folder = kept()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept() == folder


def test_jaxs_own_setting_comes_first(kept):
    assert kept("/elsewhere") == Path("/elsewhere")


def test_a_folder_that_others_can_write_to_is_not_used(kept):
    kept().chmod(0o777)
    assert kept() is None


def test_programs_go_after_two_weeks(kept):
    folder = kept()
    (folder / "folder").mkdir()  # of the compiler's, which has its own there on GPUs
    (folder / "old").touch()
    (folder / "new").touch()
    for name, days in (("folder", 15), ("old", 15), ("new", 13)):
        then = time.time() - days * 24 * 3600
        os.utime(folder / name, (then, then))
    assert kept() == folder
    assert {file.name for file in folder.iterdir()} == {"folder", "new"}
