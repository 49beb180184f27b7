"""What the compiler is told: options for faster programs here, and where to keep programs."""

import functools
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

# On the CPU the compiler has two libraries for convolutions. The newer one works on tiles of 64
# channels and shares small ones between few cores: of the networks up to this size the older one
# makes 1.1 to 1.3 times faster steps, of the wide ones slower ones (benchmarks/NOTES.md).
_NARROW_PARAMETERS = 5_000_000
_KEPT_SECONDS = 14 * 24 * 3600
_PRODUCTS_ONLY = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


def options(parameters: int) -> dict[str, str] | None:
    """`compiler_options` of jax.jit for the programs of a network with so many parameters."""
    if jax.default_backend() != "cpu" or not _known():
        return None
    return _PRODUCTS_ONLY if parameters < _NARROW_PARAMETERS else None


@functools.cache
def _known() -> bool:
    """Whether this version of the compiler takes the option."""
    try:
        jax.jit(lambda: jnp.int8(0), compiler_options=_PRODUCTS_ONLY).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def keep_programs() -> None:
    """Keep compiled programs for the next processes of this user on this machine.

    In the folder for temporary files, so that no other machine, whose processor may differ, finds
    them, and for two weeks. JAX's own setting, JAX_COMPILATION_CACHE_DIR, comes first.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    user = getattr(os, "getuid", lambda: 0)()
    folder = Path(tempfile.gettempdir()) / f"feedseg-programs-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or not _ours(folder.stat(), user):
            return  # programs that somebody else may have put there are not run
        for file in folder.iterdir():
            if file.is_file() and time.time() - file.stat().st_mtime > _KEPT_SECONDS:
                file.unlink(missing_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _ours(facts: os.stat_result, user: int) -> bool:
    """Whether only this user writes there."""
    return facts.st_uid == user and not facts.st_mode & 0o022
