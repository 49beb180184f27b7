"""Identity and short, distinctive names of methods."""

import json
import re
from collections.abc import Sequence

from feedseg.runs import config as configs

# Keys that do not belong to a method: names, repeats, what is scored, where it runs.
_IGNORED = ("experiment", "run_name", "seed", "split.fold", "evaluate", "data_dir", "runtime")
_REPEAT = re.compile(r"(fold|seed)\d+")
_MOST_CHANGES = 3  # differing keys that a name may list


def method_key(config: dict) -> str:
    """The configuration up to seed and fold as text: equal for the runs of one method."""
    return json.dumps(decisive(config), sort_keys=True)


def decisive(config: dict) -> dict:
    """The values that make a method, by dotted key.

    Zero, empty and `none` count as absent, so that keys added by later versions do not separate
    older runs from newer ones.
    """
    return {
        key: value
        for key, value in flat(config).items()
        if value not in (None, "", "none", 0, [])
        and key not in _IGNORED
        and key.split(".")[0] not in _IGNORED
    }


def short_names(
    plain: Sequence[dict], folders: Sequence[str], keep_repeats: bool = False
) -> list[str]:
    """A name for each configuration: `experiment-run_name` without what all of them share.

    Equal names get the keys that differ (`unet (train.epochs=15)`), or their folder where the
    configurations are equal too. keep_repeats: fold and seed stay in the name.
    """
    words = [_words(config, keep_repeats) for config in plain]
    for word in [word for word in words[0] if all(word in name for name in words)]:
        shorter = [[w for w in name if w != word] for name in words]
        if all(shorter) and len(words) > 1:
            words = shorter
    names = ["-".join(name) for name in words]
    names = [_distinguished(i, names, plain) for i in range(len(names))]
    return [
        f"{name} ({folder})" if names.count(name) > 1 else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _words(config: dict, keep_repeats: bool) -> list[str]:
    words = [config.get("experiment", ""), *config.get("run_name", "").split("-")]
    words = [w for w in words if w and (keep_repeats or not _REPEAT.fullmatch(w))]
    return list(dict.fromkeys(words)) or [config.get("model", {}).get("name", "run")]


def _distinguished(index: int, names: Sequence[str], plain: Sequence[dict]) -> str:
    """The name, with the keys in which configurations of the same name differ."""
    others = [decisive(plain[i]) for i, name in enumerate(names) if name == names[index]]
    keys = sorted({key for values in others for key in values})
    differing = [key for key in keys if len({str(values.get(key)) for values in others}) > 1]
    if not differing:
        return names[index]
    if len(differing) > _MOST_CHANGES:
        return f"{names[index]} ({configs.config_hash(plain[index])[:6]})"
    mine = flat(plain[index])
    changes = ", ".join(f"{key}={mine.get(key, '-')}" for key in differing)
    return f"{names[index]} ({changes})"


def flat(plain: dict, prefix: str = "") -> dict:
    """Values by dotted key."""
    leaves = {}
    for key, value in plain.items():
        inner = isinstance(value, dict)
        leaves |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves
