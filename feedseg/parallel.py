"""Devices: the mesh, where arrays lie on it, and the compiled steps.

Data parallelism is one jitted program over a mesh with the batch split along `data`; batch
normalisation then sees the whole batch, so the result does not depend on the number of devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from feedseg.errors import UserError


def make_mesh(count: int, batch: int, require_gpu: bool) -> Mesh:
    """Mesh over `count` devices (0: all that divide the batch evenly, at most all there are).

    Raises UserError if there are not so many, the batch does not divide, or a GPU is required and
    JAX found none.
    """
    devices = jax.devices()
    if require_gpu and devices[0].platform == "cpu":
        raise UserError(
            "runtime.require_gpu is set and JAX sees no accelerator: run `feedseg doctor`"
        )
    if count > len(devices):
        raise UserError(f"runtime.devices={count}: only {len(devices)} device(s) are here")
    if count and batch % count:
        raise UserError(f"train.batch_size={batch} does not divide by runtime.devices={count}")
    used = count or max(n for n in range(1, len(devices) + 1) if batch % n == 0)
    return jax.make_mesh((used,), ("data",), (AxisType.Auto,), devices=devices[:used])


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on every device."""
    return NamedSharding(mesh, P())


def put(mesh: Mesh, tree: Any) -> Any:
    """A tree of arrays, whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def batch_placer(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Constraint that splits an array's first axis over the devices."""
    sharding = NamedSharding(mesh, P("data"))
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)


def compile_train(mesh: Mesh, step: Callable) -> Callable:
    """Jitted training step; the old state's memory is reused."""
    whole = replicated(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(whole, whole))


def compile_eval(mesh: Mesh, step: Callable) -> Callable:
    """Jitted evaluation step with its results whole on every device."""
    return jax.jit(step, out_shardings=replicated(mesh))


def describe(mesh: Mesh) -> str:
    """Devices in words, e.g. `4 x NVIDIA H100`."""
    kinds = sorted({d.device_kind for d in np.ravel(mesh.devices)})
    return f"{mesh.size} x {', '.join(kinds)}"
