"""Networks, one file each, found by name. Every file exposes `Model`.

    logits, out = Model(num_classes=K, **arguments).apply(variables, image, train=False)

image [N, H, W, C] float32 in [0, 1]; logits [N, H, W, K]; out: named extra outputs.
`first` [N, H, W, K] and the stacks `members` [S, N, H, W, K], `rounds` [T, N, H, W, K] and
`member_rounds` [..., N, H, W, K] hold logits and can be used in the loss; other entries are there
to be looked at.
`Model.stride`: image sides must be multiples of it; `Model.halo`: px around a pixel that can
change its output, a multiple of the stride. `Model.whole_image` (where it exists): whether a pixel
depends on all others or the weights on the image's size; windows are then as large as in training.
An argument that comes later gets a default that changes nothing, so that older models can be read.
"""

import importlib
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp

from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean


def names() -> list[str]:
    """Names of all networks."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def build(num_classes: int, config, name: str | None = None) -> nn.Module:
    """The network that `config.model` describes.

    name: what it is called as a part of the network in whose compact method it is built; without
    one it stands alone. Raises UserError for an unknown name or argument.
    """
    arguments = dict(config)
    kind = arguments.pop("name")
    if kind not in names():
        hint = did_you_mean(kind, names())
        raise UserError(f"model.name={kind!r} is unknown{hint} There are: {', '.join(names())}.")
    module = importlib.import_module(f"feedseg.models.{kind}")
    place = {"name": name} if name else {"parent": None}
    try:
        return module.Model(num_classes=num_classes, **arguments, **place)
    except TypeError as error:
        raise UserError(f"config.model does not fit network {kind!r}: {error}") from None


def count_parameters(params) -> int:
    """Numbers that training changes, statistics of normalisations not among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def forward(
    model: nn.Module, variables, image: jax.Array, dtype=jnp.float32
) -> tuple[jax.Array, dict]:
    """Logits [N, H, W, K] and extra outputs of a network in evaluation, computed in `dtype`."""
    params = jax.tree.map(lambda p: p.astype(dtype), variables["params"])
    return model.apply({**variables, "params": params}, image.astype(dtype), train=False)
