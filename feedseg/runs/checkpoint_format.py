"""One saved step as it lies on the disk: arrays written by Orbax and a record that proves them.

The record is a JSON text with its own SHA-256; it holds name, shape, type and SHA-256 of each
array, and the trainer's own values. Arrays are named by the keys that lead to them in the state,
joined by slashes, so what is stored does not depend on the classes of the optimizer's state.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from feedseg.runs import orbax_output
from feedseg.runtime import json_files
from feedseg.runtime.errors import UserError, one_line


class Damaged(Exception):
    """A step whose files are missing, unreadable or other than its record says."""


def make_record(host: dict[str, np.ndarray], parts: list[str], meta: dict) -> dict:
    """What lies beside the arrays: a JSON text and its own digest."""
    arrays = {name: [*_kind(array), _digest(array)] for name, array in host.items()}
    content = {"arrays": arrays, "parts": parts, "meta": meta}
    text = json.dumps(content, default=lambda value: value.tolist())
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "content": text}


def require_room(folder: Path, host: dict[str, np.ndarray]) -> None:
    """Raises OSError if the disk cannot take the arrays and a megabyte that describes them.

    Asked before Orbax begins, for its threads end on a full disk in pages of tracebacks.
    """
    folder.mkdir(exist_ok=True)  # it may have been deleted; of a run that is gone nothing is made
    size = 2**20 + sum(array.nbytes for array in host.values())
    with tempfile.TemporaryFile(dir=folder) as stream:
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise


def load_text(path: Path) -> str:
    """The record's text, checked against its digest. Raises Damaged."""
    try:
        record = json_files.read(path / "record" / "metadata")
        if hashlib.sha256(record["content"].encode()).hexdigest() == record["sha256"]:
            return record["content"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise Damaged(f"its record cannot be read: {reason}") from error
    raise Damaged("its record does not match its digest")


def read(path: Path, wanted: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays by name and the record's content, all bytes checked.

    Raises Damaged, or UserError if the record differs from the arrays `wanted`.
    """
    content = json.loads(load_text(path))
    arrays = content["arrays"]
    if wanted is not None:
        _same_network(path.parent, arrays, wanted)
    host = _read_arrays(path, arrays)
    for name, (shape, dtype, digest) in arrays.items():
        if _kind(host[name]) != [shape, dtype] or _digest(host[name]) != digest:
            raise Damaged(f"the bytes of {name} do not match their digest")
    return host, content


def _read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The stored arrays, unchecked; each process reads by itself. Raises Damaged."""
    import orbax.checkpoint as ocp

    orbax_output.silence()
    how = ocp.RestoreArgs(restore_type=np.ndarray)
    request = ocp.args.PyTreeRestore(
        item=nest(dict.fromkeys(names, 0)), restore_args=nest(dict.fromkeys(names, how))
    )
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            found = to_flat(reader.restore(path / "state", args=request))
        return {name: np.asarray(found[name]) for name in names}
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise whatever their parser trips over
        raise Damaged(f"{type(error).__name__}: {one_line(error)}") from error


def _same_network(folder: Path, arrays: dict, wanted: dict) -> None:
    """Raises UserError naming the first arrays that are missing, unknown or of another shape."""
    here = {name: _kind(leaf) for name, leaf in wanted.items()}
    there = {name: entry[:2] for name, entry in arrays.items()}
    names = [n for n in {**here, **there} if here.get(n) != there.get(n)]
    names.sort(key=lambda name: not name.startswith("params/"))  # what people know first
    if names:
        first = [f"{n} is {_words(there.get(n))}, not {_words(here.get(n))}" for n in names[:3]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UserError(
            f"the checkpoints in {folder} are of another network: {'; '.join(first)}{more}; use "
            "the config they were made with or another --workdir"
        )


def _kind(array) -> list:
    """Shape and type as JSON holds them."""
    return [list(array.shape), str(array.dtype)]


def _words(kind: list | None) -> str:
    return f"{kind[1]}{kind[0]}" if kind else "absent"


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


# Trees ------------------------------------------------------------------------------------------


def to_flat(tree) -> dict:
    """Leaves by name: the keys on the way to them, joined by slashes; slashes in keys become |."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(map(_key_name, path)): leaf for path, leaf in leaves}


def _key_name(key) -> str:
    return jax.tree_util.keystr((key,), simple=True).replace("/", "|")


def nest(flat: dict) -> dict:
    """Nested dicts from names joined by slashes."""
    tree = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def to_host(tree) -> dict[str, np.ndarray]:
    """Leaves as NumPy copies, which no later donation of the device's buffers can touch."""
    return {name: np.array(leaf) for name, leaf in to_flat(jax.device_get(tree)).items()}


def place(host: dict[str, np.ndarray], abstract_tree):
    """Arrays on the devices, in the structure and with the shardings of `abstract_tree`."""

    def put(array, leaf):
        sharding = getattr(leaf, "sharding", None)
        if sharding is None:
            return jax.device_put(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    leaves, structure = jax.tree.flatten(abstract_tree)
    names = to_flat(abstract_tree)
    return structure.unflatten(
        put(host[name], leaf) for name, leaf in zip(names, leaves, strict=True)
    )
