"""Networks, one file each, found by name. Every file exposes `Model`, a `layers.network.Network`.

    logits, out = Model(num_classes=K, **arguments).apply(variables, image, train=False)

image [N, H, W, C] float32 in [0, 1]; logits [N, H, W, K]; out: named extra outputs.
`first` [N, H, W, K] and the stacks `members` [S, N, H, W, K], `rounds` [T, N, H, W, K] and
`member_rounds` [..., N, H, W, K] hold logits and can be used in the loss; the other entries are for
inspection.

The fields of `Model` and their defaults are the arguments of `config.model`; nothing else lists
them. A field that is added later needs a default that changes nothing: older model files lack it.
Importing this package does not import JAX, so that configurations load fast.
"""

import ast
import functools
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from feedseg.models.layers import arguments
from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

if TYPE_CHECKING:
    import flax.linen as nn


def names() -> list[str]:
    """Names of all networks."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def defaults(name: str) -> dict:
    """`config.model` of a network: its name, and the fields of its `Model` with their defaults.

    Read from the source, which must write the defaults as literals. Raises UserError for an unknown
    name.
    """
    _check_name(name)
    return {"name": name, **_fields(f"{__name__}.{name}", "Model")}


def _fields(module: str, class_name: str) -> dict:
    """Fields with a default of a class and of its bases in this package."""
    path = Path(__file__).parent.joinpath(*module.split(".")[2:]).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (definition,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    fields = {}
    for base in definition.bases:
        first, dot, rest = ast.unparse(base).partition(".")
        base_module, _, base_name = f"{imports.get(first, first)}{dot}{rest}".rpartition(".")
        if base_module.startswith(f"{__name__}."):
            fields |= _fields(base_module, base_name)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            fields |= {node.target.id: _literal(node.value)} if node.value else {}
    return fields


def _literal(value: ast.expr):
    """The value of a literal, or of the literal in `field(default_factory=lambda: literal)`."""
    return ast.literal_eval(value.keywords[0].value.body if isinstance(value, ast.Call) else value)


def build(num_classes: int, config, name: str | None = None) -> "nn.Module":
    """The network that `config.model` describes.

    name: its Flax name if it is part of another network, whose compact method calls this; without
    one it stands alone. Raises UserError as `check`.
    """
    check(config)
    given = dict(config)
    module = importlib.import_module(f"{__name__}.{given.pop('name')}")
    position = {"name": name} if name else {"parent": None}
    return module.Model(num_classes=num_classes, **given, **position)


def check(config, key: str = "model") -> None:
    """Raises UserError naming the first argument of `config.model` that the network does not take.

    Or that has a value which is not allowed. key: what `config.model` is called in messages.
    """
    given = dict(config)
    kind = given.pop("name", None)
    _check_name(kind)
    known = _known(kind)
    for name, value in given.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"config.{key} does not fit network {kind!r}: {name} is unknown{hint}")
        if name == "network2":
            _check_inner(kind, value, f"{key}.{name}")
        elif problem := arguments.specification(name, known[name]).problem(value, f"{key}.{name}"):
            raise UserError(problem)


def _check_inner(outer: str, config, key: str) -> None:
    """As `check`, for the network that is a part of network `outer`."""
    try:
        name = config["name"]
    except (TypeError, KeyError, IndexError):
        raise UserError(f"{key}: the name and the arguments of a network") from None
    if name == outer:
        raise UserError(f"{key}.name={name!r}: choose a network that is no {outer} itself")
    if name != "own":
        check(config, key)


@functools.cache
def _known(name: str) -> dict:
    return defaults(name)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or name not in names():
        hint = did_you_mean(name, names())
        raise UserError(f"model.name={name!r} is unknown{hint} There are: {', '.join(names())}.")


def count_parameters(params) -> int:
    """Number of trainable values; running statistics of normalizations do not count."""
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(params))


def forward(model, variables, image, dtype="float32"):
    """Logits [N, H, W, K] and extra outputs of a network in evaluation, computed in `dtype`.

    variables: `params` and `batch_stats`; image [N, H, W, C] in [0, 1].
    """
    import jax

    params = jax.tree.map(lambda p: p.astype(dtype), variables["params"])
    return model.apply({**variables, "params": params}, image.astype(dtype), train=False)
