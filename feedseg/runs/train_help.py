"""The text of `feedseg train --help`, from the configurations themselves."""

import ast
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from feedseg.runs import shipped
from feedseg.runtime.allowed import Number
from feedseg.runtime.tables import aligned

_USUAL = (
    "seed",
    "data_dir",
    "data.crop_size",
    "data.normalization",
    "data.label_map",
    "data.classes",
    "split.group",
    "train.epochs",
    "train.patience",
    "train.batch_size",
    "optimizer.learning_rate",
    "loss.class_weight",
    "runtime.devices",
    "runtime.loggers",
)


def text(name: str = "") -> str:
    """Usage, configurations, the arguments of the one called `name`, and keys with their defaults.

    Raises UserError if there is no configuration of this name.
    """
    lines = [
        "usage: feedseg train --config NAME[:argument=value,...] [--config.KEY=VALUE ...]",
        "                     [--workdir DIR] [--require-gpu]",
        "",
        "Trains and evaluates. NAME: one of these, or a file of your own:",
        "",
        *_table([(key, _summary(path)) for key, path in shipped.files().items()]),
    ]
    config = None
    if name:
        module = _loaded(shipped.find(name))
        config = module.get_config()
        lines += ["", f"Arguments of {name} with their defaults (a|b: the choices):", ""]
        lines += _table(arguments(module))
    else:
        lines += ["", "feedseg train --config NAME --help shows its arguments."]
    lines += ["", "Keys that are often changed, with their defaults:", "", *_table(_keys(config))]
    return "\n".join([*lines, "", f"All keys: {shipped.root() / 'configs/common/keys.py'}"])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned(rows, "l")]


def _summary(path: Path) -> str:
    """The first line of a configuration's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def _loaded(path: Path) -> ModuleType:
    shipped.importable(path)
    return shipped.load(path)


def arguments(module: ModuleType) -> list[tuple[str, str]]:
    """What follows the colon of a configuration: names and defaults."""
    from configs.common.arguments import Arguments

    try:
        module.get_config("help")
    except Arguments as found:
        return [(key, _default(value)) for key, value in found.spec.items()]
    return []


def _default(value) -> str:
    return "|".join(value) if isinstance(value, tuple) else str(value)


def _keys(config=None) -> list[tuple[str, str, str]]:
    """The usual keys, their values in a configuration, or by default, meaning and limits."""
    keys = shipped.keys()
    base, comments, allowed = config or keys.base(), _comments(Path(keys.__file__)), keys.allowed()
    rows = []
    for key in _USUAL:
        value = base
        for part in key.split("."):
            value = value[part]
        words = allowed[key].words() if isinstance(allowed.get(key), Number) else ""
        about = "; ".join(filter(None, (comments.get(key), words)))
        rows.append((f"--config.{key}", repr(value), about))
    return rows


def _comments(path: Path) -> dict[str, str]:
    """The comment beside each key, by its dotted name."""
    source = path.read_text("utf-8")
    lines, found = source.splitlines(), {}

    def walk(call: ast.Call, prefix: str) -> None:
        for keyword in call.keywords:
            name = f"{prefix}{keyword.arg}"
            if isinstance(keyword.value, ast.Call) and ast.unparse(keyword.value.func) == "dict":
                walk(keyword.value, f"{name}.")
            found[name] = _comment(lines[keyword.end_lineno - 1 :])

    def _comment(rest: list[str]) -> str:
        """The comment of a line, which may go on in lines of their own."""
        more = itertools.takewhile(lambda line: line.strip().startswith("#"), rest[1:])
        parts = [rest[0].partition("#")[2], *(line.strip(" #") for line in more)]
        return " ".join(part.strip() for part in parts if part.strip())

    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    outer = next(call for call in calls if ast.unparse(call.func) == "dict")
    walk(outer, "")
    return found
