"""Imports run one way: from the command line down to the runtime, without a circle.

Imports inside functions count too. A folder may import those on lower floors and itself.
"""

import ast
import graphlib
from pathlib import Path

import pytest

from tests.support.tiny import ROOT

FLOORS = (
    ("runtime",),
    ("runs", "io", "models"),
    ("datasets", "inference"),
    ("evaluation", "napari"),
    ("experiments", "training", "export"),
    ("main",),
    ("cli",),
)
FLOOR = {folder: number for number, floor in enumerate(FLOORS) for folder in floor}
FREE = {"feedseg"}  # the package itself: its version and `load`


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "feedseg").rglob("*.py"))}


def imported(path: Path, name: str) -> set[str]:
    """Modules of this project that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative imports hide where a name comes from"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else node.module for each in full}
    return {each for each in found if each.split(".")[0] == "feedseg"}


IMPORTS = {name: imported(path, name) for name, path in MODULES.items()}


def folder(module: str) -> str:
    return module.split(".")[1]


def test_every_folder_has_a_floor():
    assert {folder(name) for name in MODULES if name not in FREE} == set(FLOOR)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in FREE])
def test_imports_run_down(name):
    for target in IMPORTS[name] - FREE:
        low, high = folder(target), folder(name)
        assert low == high or FLOOR[low] < FLOOR[high], f"{name} must not import {target}"


def test_no_circles():
    graph = {name: IMPORTS[name] - FREE - {name} for name in MODULES if name not in FREE}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError naming the circle


def test_configurations_import_little():
    """They are read for every command, before JAX."""
    for path in (ROOT / "configs").rglob("*.py"):
        targets = {folder(each) for each in imported(path, path.name) - FREE}
        assert targets <= {"runtime", "models", "datasets", "experiments"}, path
