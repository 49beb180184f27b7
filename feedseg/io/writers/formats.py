"""The file formats of label images, one file of this folder each, found by name.

A format's file holds one line of literals, `FORMAT, SUFFIXES = "name", (".suffix", ...)`, whose
first suffix is that of new files, and `write(path, image: LabelImage)`, which raises SaveFailed if
the file cannot be written. It may hold `require(folder)`, which raises UserError if a library is
missing.
"""

import ast
import functools
from pathlib import Path


@functools.cache
def formats() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The module and the suffixes of each format, read without importing the libraries."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Tuple(elts=[ast.Name("FORMAT"), _])]):
                    name, suffixes = ast.literal_eval(node.value)
                    found[name] = (f"{__package__}.{path.stem}", suffixes)
    return dict(sorted(found.items(), key=lambda item: len(item[0])))


def suffix(form: str) -> str:
    """How the names of new files of a format end."""
    return formats()[form][1][0]
