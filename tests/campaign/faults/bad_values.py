"""Nonsense in keys of the configuration: refused in one line, or it trains."""

from tests.campaign import reading, tasks

NONSENSE = ("", "None", "-1", "0", "nan", "inf", "1e400", "0.5", "x", "()", "(1,)", "[]", "{}")
NONSENSE += ("True", "é\n", "../../x", "'", "(0, 0)", "{'a': {}}", "(-1, 4)", "1" * 30)
AMOUNTS = ("count", "size", "epochs", "filters", "devices", "steps", "rounds", "together")


def attempt(rng, folder):
    key = rng.choice(_keys())
    # An amount of 10^30 is work for ever, not nonsense.
    values = [v for v in NONSENSE if not (len(v) > 20 and any(a in key for a in AMOUNTS))]
    value = rng.choice(values)
    config = [f"--config={tasks.TINY}", "--config.train.epochs=1"]
    given = [f"--config.{key}={value}", f"--workdir={folder / 'run'}"]
    outcome, _ = reading.command(
        ["train", *config, *given], f"{key}={value!r}", limit_s=90, memory_mb=2000
    )
    return outcome


def _keys():
    from tests.support import tiny

    def flat(config, prefix=""):
        for key, value in config.items():
            if hasattr(value, "items") and len(value):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    return sorted(flat(tiny.get_config()))
