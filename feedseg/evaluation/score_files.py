"""Scores of label folders as files: `scores.csv`, a line per image, and `scores.json`."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.runtime.files import write_json_atomic, write_text_atomic
from feedseg.runtime.output_lock import hold_folder
from feedseg.runtime.tables import write_csv


def write_scores(folder: Path, tables: Mapping[str, Sequence[Mapping]], result: Mapping) -> None:
    """Tables of rows by the names of their CSV files, and scores.json, in `folder`.

    Raises InUse, UserError, SaveFailed as `hold_folder`.
    """
    with hold_folder(folder):
        for name, rows in tables.items():
            write_rows(folder / name, rows)
        write_json_atomic(folder / "scores.json", result)


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """A CSV file of rows with the same keys. Raises SaveFailed if it cannot be written."""
    stream = io.StringIO(newline="")
    write_csv(stream, list(rows[0]), rows)
    write_text_atomic(path, stream.getvalue())
