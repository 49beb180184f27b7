"""Networks, one file each, found by name. Every file exposes `Model`.

    logits, out = Model(num_classes=K, **arguments).apply(variables, image, train=False)

image [N, H, W, C] float32 in [0, 1]; logits [N, H, W, K]; out: named extra outputs.
`first` [N, H, W, K] and the stacks `members` [S, N, H, W, K], `rounds` [T, N, H, W, K] and
`member_rounds` [..., N, H, W, K] hold logits and can be used in the loss; other entries are there
to be looked at.
`Model.stride`: image sides must be multiples of it; `Model.halo`: px around a pixel that can
change its output, a multiple of the stride. `Model.whole_image` (where it exists): whether a pixel
depends on all others or the weights on the image's size; windows are then as large as in training.
Every argument but `num_classes` has a default, which is a literal; one that comes later changes
nothing by it, so that older models can be read.
"""

import ast
import functools
import importlib
import pkgutil
from pathlib import Path

from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of all networks."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def defaults(name: str) -> dict:
    """Arguments of network `name` by name: the fields of `Model` that have a value.

    Fields of base classes that are written in this package count too.
    """
    return {"name": name, **_fields(_FOLDER / f"{name}.py", "Model")}


@functools.cache
def _fields(path: Path, class_name: str) -> dict:
    tree = ast.parse(path.read_text("utf-8"))
    imports = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (found,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    fields = {}
    for base in found.bases:
        module, _, attribute = ast.unparse(base).partition(".")
        package, name = imports.get(module, ("", ""))
        if package.startswith("feedseg.models"):
            file = _FOLDER.joinpath(*package.split(".")[2:], *[name] * bool(attribute))
            fields |= _fields(file.with_suffix(".py"), attribute or name)
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and node.value and "ClassVar" not in ast.dump(node):
            fields[node.target.id] = _value(node.value)
    return fields


def _value(node: ast.expr):
    """A literal, or the content of `FrozenDict(key=literal)`."""
    if isinstance(node, ast.Call):
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    return ast.literal_eval(node)


def build(num_classes: int, config, name: str | None = None):
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
    """Numbers that training changes, statistics of normalizations not among them."""
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(params))


def forward(model, variables, image, dtype="float32"):
    """Logits [N, H, W, K] and extra outputs of a network in evaluation, computed in `dtype`.

    variables: `params` and `batch_stats`; image [N, H, W, C] in [0, 1].
    """
    import jax

    params = jax.tree.map(lambda p: p.astype(dtype), variables["params"])
    return model.apply({**variables, "params": params}, image.astype(dtype), train=False)
