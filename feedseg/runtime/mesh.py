"""Devices: the mesh, where arrays lie on it, and the compiled steps.

Data parallelism is one jitted program over a mesh with the batch split along `data`; batch
normalization then sees the whole batch, so the result does not depend on the number of devices.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from feedseg.runtime import processes as distributed
from feedseg.runtime.errors import UserError


def make_mesh(count: int, batch: int, require_gpu: bool) -> Mesh:
    """Mesh over `count` devices (0: all that divide the batch evenly, at most all there are).

    Several processes use the devices of all of them, none less.
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
    if jax.process_count() > 1:
        _check_all_used(count, batch, len(devices))
        return _connected(mesh_of(devices))
    used = count or max(n for n in range(1, len(devices) + 1) if batch % n == 0)
    return mesh_of(devices[:used])


def _connected(mesh: Mesh) -> Mesh:
    """The mesh, its devices connected: the first sum waits 30 s for the last of them, no more."""
    parts = NamedSharding(mesh, P("data"))
    ones = jax.make_array_from_callback((mesh.size,), parts, lambda _: np.ones(1))
    distributed.all_agree()
    jax.jit(jnp.sum)(ones).block_until_ready()
    return mesh


def _check_all_used(count: int, batch: int, total: int) -> None:
    """Raises UserError if a process would have nothing to do."""
    here = f"{jax.process_count()} processes have {total} devices"
    if count not in (0, total):
        raise UserError(f"runtime.devices={count}: {here}, all of which are used; set it to 0")
    if batch % total:
        raise UserError(f"train.batch_size={batch}: {here}, which must divide it")


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """Mesh over these devices."""
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on every device."""
    return NamedSharding(mesh, P())


def abstract(mesh: Mesh, tree: Any) -> Any:
    """Shapes and types of a tree of arrays that are whole on every device: a restore's target."""
    whole = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)


def put(mesh: Mesh, tree: Any) -> Any:
    """A tree of arrays, whole on every device of the mesh.

    Raises UserError in a process whose arrays are not those of process 0.
    """
    whole = replicated(mesh)
    if whole.is_fully_addressable:
        return jax.device_put(tree, whole)
    host = jax.tree.map(np.asarray, tree)
    distributed.check_same("what is trained on or the first state", _digest(host))
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, whole, lambda index: x[index]), host
    )


def _digest(tree: Any) -> str:
    """SHA-256 of all bytes of a tree of NumPy arrays."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(f"{leaf.dtype}{leaf.shape}".encode())
        sha.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    return sha.hexdigest()


def batch_placer(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Constraint that splits an array's first axis over the devices."""
    sharding = NamedSharding(mesh, P("data"))
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)


def compile_train(mesh: Mesh, step: Callable, options: dict | None = None) -> Callable:
    """Jitted training step; the old state's memory is reused. options: of the compiler."""
    whole = replicated(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(whole, whole), compiler_options=options)


def compile_eval(mesh: Mesh, step: Callable, options: dict | None = None) -> Callable:
    """Jitted evaluation step with its results whole on every device. options: of the compiler."""
    return jax.jit(step, out_shardings=replicated(mesh), compiler_options=options)


def describe(mesh: Mesh) -> str:
    """Devices in words, e.g. `4 x NVIDIA H100` or `4 x NVIDIA H100 in 2 processes`."""
    kinds = sorted({d.device_kind for d in np.ravel(mesh.devices)})
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} x {', '.join(kinds)}{processes}"
