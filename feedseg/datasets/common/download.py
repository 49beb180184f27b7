"""What `feedseg fetch` may download for a dataset: files, addresses and SHA-256 digests.

Each manifests/NAME.json holds {"base": address, "files": {"path below the dataset": digest}}.
"""

import json
from pathlib import Path
from typing import NamedTuple

MANIFESTS = Path(__file__).parent / "manifests"


class Download(NamedTuple):
    """One file of a dataset."""

    url: str
    sha256: str
    path: str  # where it goes below the dataset's folder


def manifest(name: str) -> tuple[Download, ...]:
    """The files listed in manifests/NAME.json."""
    listed = json.loads((MANIFESTS / f"{name}.json").read_text())
    return tuple(
        Download(listed["base"] + path, digest, path) for path, digest in listed["files"].items()
    )
