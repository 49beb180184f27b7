"""Faults, one file each, found by name. Every file exposes `attempt(rng, folder) -> Outcome`."""

import importlib
import pkgutil


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str):
    """The function `attempt` of a fault."""
    return importlib.import_module(f"{__name__}.{name}").attempt
