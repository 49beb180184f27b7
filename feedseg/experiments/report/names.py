"""What a method is, and short names for methods that tell them apart."""

import json
import re
from collections.abc import Sequence

from feedseg.runs import config as configs

# Names, repeats, what is scored and where: no part of a method.
_IGNORED = ("experiment", "run_name", "seed", "split.fold", "evaluate", "data_dir", "runtime")
_REPEAT = re.compile(r"(fold|seed)\d+")
_MOST_CHANGES = 3  # differing keys that a name may list


def method_key(config: dict) -> str:
    """The configuration up to seed and fold as text: equal for the runs of one method."""
    return json.dumps(decisive(config), sort_keys=True)


def decisive(config: dict) -> dict:
    """What makes a method, by dotted key: values that do something.

    Zero, empty and `none` count as if the key were not there, so that a key which later versions
    added makes no other method of an older run.
    """
    return {
        key: value
        for key, value in flat(config).items()
        if value not in (None, "", "none", 0, [])
        and key not in _IGNORED
        and key.split(".")[0] not in _IGNORED
    }


def short_names(
    plain: Sequence[dict], places: Sequence[str], keep_repeats: bool = False
) -> list[str]:
    """A name for each configuration: `experiment-run_name` without what all of them share.

    Equal names get the keys that differ (`unet (train.epochs=15)`), or their place where the
    configurations are equal too. keep_repeats: fold and seed stay in the name.
    """
    words = [_words(config, keep_repeats) for config in plain]
    for word in [word for word in words[0] if all(word in each for each in words)]:
        shorter = [[w for w in each if w != word] for each in words]
        if all(shorter) and len(words) > 1:
            words = shorter
    names = ["-".join(each) for each in words]
    names = [_told_apart(i, names, plain) for i in range(len(names))]
    return [
        f"{name} ({place})" if names.count(name) > 1 else name
        for name, place in zip(names, places, strict=True)
    ]


def _words(config: dict, keep_repeats: bool) -> list[str]:
    words = [config.get("experiment", ""), *config.get("run_name", "").split("-")]
    words = [w for w in words if w and (keep_repeats or not _REPEAT.fullmatch(w))]
    return list(dict.fromkeys(words)) or [config.get("model", {}).get("name", "run")]


def _told_apart(index: int, names: Sequence[str], plain: Sequence[dict]) -> str:
    """The name, with what this configuration has different from others of the same name."""
    others = [decisive(plain[i]) for i, name in enumerate(names) if name == names[index]]
    keys = sorted({key for each in others for key in each})
    differing = [key for key in keys if len({str(each.get(key)) for each in others}) > 1]
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
