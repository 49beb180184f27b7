"""The configurations that come with feedseg, found by name from any folder.

They lie in `configs/`: beside the package in a checkout, below `feedseg/shipped` where it is
installed. A file of the user's own comes first.
"""

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "shipped", _PACKAGE.parent)  # that `configs` is imported from
_KEYS = Path("configs", "common", "keys.py")


def root() -> Path:
    """The folder that holds `configs/`."""
    return next((each for each in _ROOTS if (each / _KEYS).is_file()), _ROOTS[1])


def files() -> dict[str, Path]:
    """Configuration files by name."""
    found = sorted((root() / "configs").glob("*.py"))
    return {path.stem: path for path in found if path.stem != "__init__"}


def find(name: str) -> Path:
    """The configuration file of this path or name, such as `unet` or `configs/unet.py`.

    Raises UserError listing the names if there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = files()
    stem = path.name.removesuffix(".py")
    if path.parent in (Path(), Path("configs")) and stem in known:
        return known[stem]
    hint = did_you_mean(stem, known, "")
    raise UserError(
        f"{name}: no such configuration file{hint}; there are: {', '.join(known)}, or a path"
    )


@functools.cache
def keys() -> ModuleType:
    """The file of all keys that comes with this version, whatever else is called `configs`."""
    return load(root() / _KEYS)


def load(path: Path) -> ModuleType:
    """A configuration file as a module of its own."""
    spec = importlib.util.spec_from_file_location("described", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def require(name: str) -> None:
    """Raises UserError where a file of the user's own hides the shipped configuration it names."""
    path = find(name)
    if path.read_bytes() != files()[path.stem].read_bytes():
        raise UserError(
            f"{path}: hides the configuration {path.stem!r} that a published table is made with; "
            "rename it, or run the command in another folder"
        )


def importable(path: Path | None = None) -> None:
    """Make `from configs import common` work, also in a configuration file of the user's own.

    path: a configuration file, beside whose folder `configs` is looked for first.
    """
    if path:
        folder = str(path.resolve().parent.parent)
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    if str(root()) not in sys.path:
        sys.path.append(str(root()))
