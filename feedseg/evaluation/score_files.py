"""Scores of label folders as files: `scores.csv`, a line per image, and `scores.json`."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feedseg.runtime.errors import SaveFailed
from feedseg.runtime.files import write_json_atomic, write_text_atomic


def write_scores(folder: Path, rows: Sequence[Mapping], result: Mapping) -> None:
    """scores.csv of the rows and scores.json in `folder`, which is made if needed."""
    make_folder(folder)
    write_csv(folder / "scores.csv", rows)
    write_json_atomic(folder / "scores.json", result)


def make_folder(folder: Path) -> None:
    """Raises SaveFailed if the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveFailed(f"{folder}: cannot be made ({error.strerror}); choose another") from None


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Rows of the same keys; NaN is left empty. Raises SaveFailed if it cannot be written."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
        for row in rows
    )
    write_text_atomic(path, stream.getvalue())
