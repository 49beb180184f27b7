"""ImageNet weights of DenseNet-121 from a local file, for networks with that encoder.

The file holds torchvision's `densenet121` state dict as .safetensors or .npz. Nothing is fetched.
Where PyTorch is installed, the published .pth becomes an .npz with

    python -c "import numpy, torch; numpy.savez('densenet121.npz', **{k: v.numpy() for k, v in
    torch.load('densenet121-a639ec97.pth', map_location='cpu', weights_only=True).items()})"
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from feedseg.models.layers.densenet import BLOCKS, GROWTH, DenseNet
from feedseg.runtime.archives import BROKEN, Archive, parse_npy
from feedseg.runtime.errors import UserError

_MOST_BYTES = 64 * 2**20  # of one array, of which none has a tenth
_PARAMS = {"conv": {"weight": "kernel"}, "norm": {"weight": "scale", "bias": "bias"}}
_STATS = {"running_mean": "mean", "running_var": "var"}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with Archive(path) as archive:
        return {
            name.removesuffix(".npy"): parse_npy(archive.read(name, _MOST_BYTES))
            for name in archive.names
        }


_READERS: Mapping[str, Callable] = {".npz": _read_npz, ".safetensors": load_file}


def check(path: str) -> None:
    """Raises UserError for what is no file of such weights, such as the name of a trained model."""
    if path and Path(path).suffix not in _READERS:
        raise UserError(
            f"train.pretrained={path}: takes a {' or '.join(_READERS)} file of DenseNet-121's "
            "ImageNet weights for model.name=saunet; no training starts from a feedseg model"
        )


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name of a .npz or .safetensors file. Raises UserError if it is not such a file."""
    path = Path(path)
    if path.suffix not in _READERS:
        raise UserError(f"{path}: weights are read from {' or '.join(_READERS)} files")
    try:
        return _READERS[path.suffix](path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (SafetensorError, *BROKEN) as error:
        raise UserError(f"{path} is not a readable {path.suffix} file: {error}") from None


def _place(name: str) -> tuple[str, ...] | None:
    """Where an array belongs in the encoder's variables; None for what is no part of one.

    Layers of a dense block are called norm1 and conv1 in new files, norm.1 and conv.1 in the
    published ones.
    """
    *modules, kind = re.sub(r"\.(norm|conv)\.(\d)", r".\1\2", name).split(".")
    if modules[:1] != ["features"] or len(modules) < 2:
        return None
    where = "_".join(modules[1:]).replace("dense", "")
    layer = "conv" if "conv" in modules[-1] else "norm"
    if kind in _STATS:
        return "batch_stats", where, _STATS[kind]
    return ("params", where, _PARAMS[layer][kind]) if kind in _PARAMS[layer] else None


@functools.cache
def _expected() -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of the variables of the encoder, by place."""
    encoder = DenseNet(GROWTH, BLOCKS, "torch", 0.9, 1e-5)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    start = functools.partial(encoder.init, train=False)
    variables = jax.eval_shape(start, jax.random.key(0), image)
    return {place: leaf.shape for place, leaf in _flat(variables).items()}


def _flat(tree: Mapping) -> dict[tuple[str, ...], jax.Array]:
    return flax.traverse_util.flatten_dict(tree)


def load_densenet121(path: str | Path) -> dict[str, dict]:
    """{"params": ..., "batch_stats": ...} of `layers.densenet.DenseNet` with DenseNet-121's widths.

    Kernels [out, in, h, w] become [h, w, in, out], all float32. The classifier is left out.
    Raises UserError naming the file and the array that is missing, not known or of another shape.
    """
    expected, found = _expected(), {}
    for name, value in read_state_dict(path).items():
        if name.startswith("classifier.") or name.endswith("num_batches_tracked"):
            continue
        place = _place(name)
        if place not in expected:
            raise UserError(f"{path}: {name} does not belong to DenseNet-121")
        if place[-1] == "kernel" and value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        if value.shape != expected[place]:
            raise UserError(f"{path}: {name} has shape {value.shape}, not {expected[place]}")
        found[place] = jnp.asarray(value, jnp.float32)
    missing = sorted(set(expected) - set(found))
    if missing:
        raise UserError(f"{path}: {len(missing)} arrays are missing, {'/'.join(missing[0])} first")
    return flax.traverse_util.unflatten_dict(found)


def merge_densenet121(variables: Mapping, path: str | Path) -> dict:
    """The network's variables with those of its encoder read from a file (`load_densenet121`).

    Raises UserError if the network has no encoder of DenseNet-121's form.
    """
    loaded = load_densenet121(path)
    merged = {kind: dict(tree) for kind, tree in variables.items()}
    for kind, tree in loaded.items():
        present = merged.get(kind, {}).get("encoder", {})
        shapes = {place: leaf.shape for place, leaf in _flat(present).items()}
        if shapes != {place: leaf.shape for place, leaf in _flat(tree).items()}:
            raise UserError(f"{path}: the network's encoder is no DenseNet-121 (saunet has one)")
        merged[kind]["encoder"] = tree
    return merged
