"""Writing label images in the format that the name's end stands for."""

import importlib
from pathlib import Path

from feedseg.io.writers.formats import formats
from feedseg.io.writers.label_image import LabelImage


def require(form: str, folder: Path) -> None:
    """Raises UserError, naming the folder to be written to, if a format needs what is missing."""
    module = importlib.import_module(formats()[form][0])
    getattr(module, "require", lambda folder: None)(folder)


def write_labels(path: Path, *arguments, **more) -> None:
    """Write a `LabelImage`, made of the arguments, in the format that the name's end stands for.

    Raises SaveFailed if it cannot be written, ValueError for labels of another form or a name of
    none.
    """
    name = Path(path).name.lower()
    endings = {end: module for module, ends in formats().values() for end in ends}
    fitting = [end for end in endings if name.endswith(end)]
    if not fitting:
        raise ValueError(f"{path}: no label format ends so; there are {', '.join(endings)}")
    module = importlib.import_module(endings[max(fitting, key=len)])
    module.write(path, LabelImage(*arguments, **more))
