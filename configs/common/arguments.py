"""What follows the colon of `--config configs/x.py:key=value,...`: types and the run's name."""

from types import SimpleNamespace

from feedseg.runtime.suggest import did_you_mean


class Arguments(ValueError):
    """What a configuration takes (`spec`), asked for by the argument `help`."""

    spec: dict


def parse(arg: str | None, **spec) -> SimpleNamespace:
    """Typed values of `key=value,key=value`, each typed like its default in `spec`.

    A default that is a tuple lists the choices, the first being the default.
    Raises ValueError naming the key and what it takes.
    """
    if arg == "help":
        asked = Arguments(f"it takes {', '.join(spec)}; --help says more")
        asked.spec = spec
        raise asked
    values = {
        key: (default[0] if isinstance(default, tuple) else default)
        for key, default in spec.items()
    }
    for item in filter(None, (arg or "").split(",")):
        key, _, text = item.partition("=")
        if key not in spec:
            hint = did_you_mean(key, spec)
            raise ValueError(
                f"config argument {key!r} is unknown{hint} It takes: {', '.join(spec)}."
            )
        values[key] = _typed(key, text, spec[key])
    return SimpleNamespace(**values)


def _typed(key, text, default):
    if isinstance(default, tuple):
        if text not in default:
            raise ValueError(f"config argument {key}={text!r}: choose one of {', '.join(default)}.")
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise ValueError(f"config argument {key}={text!r} is not of type {kind}.") from None


def run_name(args: SimpleNamespace) -> str:
    """Folder name of a run: its arguments in the order of their spec.

    `none`, empty ones and zeros (but for fold and seed) are left out.
    """
    parts = []
    for key, value in vars(args).items():
        if isinstance(value, bool):
            parts += [key] if value else []
        elif isinstance(value, int | float):
            parts += [f"{key}{value}"] if value or key in ("fold", "seed") else []
        elif value not in ("", "none"):
            parts.append(value)
    return "-".join(parts)
