"""What configurations share. Experiments state only their differences.

A config file defines `get_config(arg)`; `parse` types and checks the part after the colon of
`--config configs/x.py:key=value,...`. A run's name follows from those arguments.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict

from configs.common.arguments import parse, run_name
from configs.common.keys import base
from configs.common.protocols import use_dataset, use_split
from configs.common.recipes import EARLIER_ROUNDS, use_recipe
from feedseg import models

__all__ = [
    "EARLIER_ROUNDS",
    "base",
    "model",
    "parse",
    "run_name",
    "start",
    "use_dataset",
    "use_recipe",
    "use_split",
]


def model(name: str, **changes) -> dict:
    """Default arguments of a network with some of them changed."""
    arguments = models.defaults(name)
    unknown = set(changes) - set(arguments)
    if unknown:
        raise ValueError(
            f"network {name} takes {', '.join(arguments)}, not {', '.join(sorted(unknown))}"
        )
    return {**arguments, **changes}


def start(experiment: str, args: SimpleNamespace) -> ConfigDict:
    """All keys with what every experiment sets: names, seed, data set and degradation."""
    config = base()
    config.experiment = experiment
    config.run_name = run_name(args)
    config.seed = args.seed
    use_dataset(config, args.dataset)
    config.data.degrade = args.degrade
    return config
