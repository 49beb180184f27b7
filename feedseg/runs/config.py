"""Reading a configuration: a file, its argument, overrides; clear errors for all three.

--config configs/aep.py:dataset=isbi2012,fold=0 --config.train.epochs=60
"""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from feedseg.runs import shipped
from feedseg.runtime.errors import UserError

_MACHINE_KEYS = ("data_dir", "runtime")  # where a run happens, not what it is
# Keys of later versions: at these values a run is what it was without them.
_LATER = {
    "augment": {"scale": 0.0},
    "data": {
        **{"axes": "", "interpret": "auto", "fill_missing": False, "pixel_size": 0.0},
        **{"series": "", "z": "", "channel_files": "", "crops": "grid", "class_share": 1 / 3},
    },
    "split": {"group": ""},
    "train": {"patience": 0, "start": ""},
    "runtime": {"loggers": ()},
}
_CONFIG_ERRORS = (
    flags.Error,
    AttributeError,
    ImportError,
    KeyError,
    SyntaxError,
    TypeError,
    ValueError,
)


def parse_flags(argv: list[str]) -> tuple[ConfigDict, str]:
    """(locked config, workdir or '') from command-line arguments without the program's name.

    Raises UserError for a missing file, an unknown argument or key (with a suggestion), or a value
    of the wrong type or that makes no sense (`check`).
    """
    argv = _located(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Configuration file.", flag_values=values, sys_argv=["feedseg", *argv]
    )
    flags.DEFINE_string("workdir", "", "Run directory.", flag_values=values)
    flags.DEFINE_bool("require-gpu", False, "Refuse to train on the CPU.", flag_values=values)
    try:
        rest = values(["feedseg", *argv])[1:]
        config = values.config
    except _CONFIG_ERRORS as error:
        raise UserError(_one_line(error)) from None
    if config is None:
        raise UserError(f"name a configuration: --config NAME, of {', '.join(shipped.files())}")
    if rest:
        raise UserError(f"unknown argument {rest[0]!r}; overrides read --config.KEY=VALUE")
    if values["require-gpu"].value:
        config.runtime.require_gpu = True
    check(config.lock())
    return config, values.workdir


def _located(argv: Sequence[str]) -> list[str]:
    """The arguments with the path of the configuration file for its name.

    Raises UserError if there is none. `configs.common` becomes importable.
    """
    argv = list(argv)
    for place, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        at = place if equals else place + 1
        text = value if equals else (argv[at] if at < len(argv) else "")
        name, colon, arguments = text.partition(":")
        if name:
            path = shipped.find(name)
            shipped.importable(path)
            argv[at] = f"{flag}=" * bool(equals) + f"{path}{colon}{arguments}"
        return argv
    return argv


def config_name(argv: Sequence[str]) -> str:
    """The name or path after `--config`, without its arguments; empty without."""
    for argument, following in itertools.pairwise([*argv, ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return (value if equals else following).partition(":")[0]
    return ""


def _one_line(error: Exception) -> str:
    """The innermost cause of a nested error, in one line."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if "Traceback" in text:  # the flag library quotes the traceback of the config file
        text = text.rsplit("Error: ", 1)[-1]
    key = re.match(r"""Key "(\w+)" does not exist|'(\w+)'$""", text, re.MULTILINE)
    if key:  # ConfigDict's message, whose second line is a suggestion
        hint = text.partition("\n")[2] or "configs/common/keys.py has all keys"
        text = f"unknown key {key[1] or key[2]!r}: {hint}"
    return f"configuration: {' '.join(text.split())}"


def check(config: ConfigDict | dict) -> None:
    """Raises UserError naming the first key whose value makes no sense, and what is allowed.

    Names, and what depends on the data, are checked where they are used.
    """
    shipped.keys().check(config.to_dict() if isinstance(config, ConfigDict) else config)


def to_plain(config: ConfigDict) -> dict:
    """The config as JSON would give it back: tuples as lists."""
    return json.loads(config.to_json())


def identity(plain: dict) -> dict:
    """The part of a plain config that decides what is computed."""
    kept = {key: value for key, value in plain.items() if key not in _MACHINE_KEYS}
    for part, defaults in _LATER.items():
        if isinstance(kept.get(part), dict):
            items = kept[part].items()
            kept[part] = {k: v for k, v in items if k not in defaults or v != defaults[k]}
    return kept


def config_hash(plain: dict) -> str:
    """SHA-256 of the identity, 16 hex digits."""
    text = json.dumps(identity(plain), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_plain(plain: dict) -> ConfigDict:
    """A locked config from its stored form; lists become tuples again, and a run of an earlier
    version gets the keys that came later.
    """

    def revive(value):
        if isinstance(value, dict):
            return {key: revive(item) for key, item in value.items()}
        return tuple(revive(v) for v in value) if isinstance(value, list) else value

    later = {part: {**keys, **plain[part]} for part, keys in _LATER.items() if part in plain}
    return ConfigDict(revive({**plain, **later})).lock()


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
