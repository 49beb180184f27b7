"""Options of the compiler that make programs faster on this machine."""

import functools

import jax
import jax.numpy as jnp

# On the CPU the compiler has two libraries for convolutions. The newer one works on tiles of 64
# channels and shares small ones between few cores: of the networks up to this size the older one
# makes 1.1 to 1.3 times faster steps, of the wide ones slower ones (benchmarks/NOTES.md).
_NARROW_PARAMETERS = 5_000_000
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
