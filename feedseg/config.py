"""Reading a configuration: a file, its argument, overrides; clear errors for all three.

--config configs/aep.py:dataset=isbi2012,fold=0 --config.train.epochs=60
"""

import hashlib
import json
import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from feedseg.errors import UserError

_MACHINE_KEYS = ("data_dir", "runtime")  # where a run happens, not what it is


def parse_flags(argv: list[str]) -> tuple[ConfigDict, str]:
    """(locked config, workdir or '') from command-line arguments without the program's name.

    Raises UserError for a missing file, an unknown argument or key (with a suggestion), or a value
    of the wrong type.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "Configuration file.", flag_values=values)
    flags.DEFINE_string("workdir", "", "Run directory.", flag_values=values)
    _check_file(argv)
    try:
        rest = values(["feedseg", *argv])[1:]
        config = values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_one_line(error)) from None
    if config is None:
        raise UserError("name a configuration: --config configs/aep_irpe.py (see configs/)")
    if rest:
        raise UserError(f"unknown argument {rest[0]!r}; overrides read --config.KEY=VALUE")
    config.lock()
    return config, values.workdir


def _check_file(argv: list[str]) -> None:
    """The config file must exist; its folder's parent becomes importable, for `configs.common`."""
    text = " ".join(argv)
    match = re.search(r"--config[= ]([^ :]+)", text)
    if not match:
        return
    path = Path(match[1])
    if not path.is_file():
        known = sorted(
            str(p) for p in Path("configs").glob("*.py") if p.stem not in ("common", "__init__")
        )
        hint = f"; there are: {', '.join(known)}" if known else ""
        raise UserError(f"{path}: no such configuration file{hint}")
    sys.path.insert(0, str(path.resolve().parent.parent))


def _one_line(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return " ".join(text.split())


def to_plain(config: ConfigDict) -> dict:
    """The config as JSON would give it back: tuples as lists."""
    return json.loads(config.to_json())


def identity(plain: dict) -> dict:
    """The part of a plain config that decides what is computed."""
    return {key: value for key, value in plain.items() if key not in _MACHINE_KEYS}


def config_hash(plain: dict) -> str:
    """SHA-256 of the identity, 16 hex digits."""
    text = json.dumps(identity(plain), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_plain(plain: dict) -> ConfigDict:
    """A locked config from its stored form; lists become tuples again."""

    def revive(value):
        if isinstance(value, dict):
            return {key: revive(item) for key, item in value.items()}
        return tuple(revive(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(revive(plain)).lock()


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """`key: old -> new` for every leaf that differs."""
    lines = []
    for key in sorted(set(old) | set(new)):
        a, b, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{name}.")
        elif a != b:
            lines.append(f"{name}: {a!r} -> {b!r}")
    return lines
