"""Scores of label folders as files: `scores.csv`, a line per image, and `scores.json`."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.runtime.errors import SaveFailed
from feedseg.runtime.files import write_json_atomic, write_text_atomic
from feedseg.runtime.tables import write_csv


def write_scores(folder: Path, rows: Sequence[Mapping], result: Mapping) -> None:
    """scores.csv of the rows and scores.json in `folder`, which is made if needed."""
    make_folder(folder)
    write_rows(folder / "scores.csv", rows)
    write_json_atomic(folder / "scores.json", result)


def make_folder(folder: Path) -> None:
    """Raises SaveFailed if the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveFailed(f"{folder}: cannot be made ({error.strerror}); choose another") from None


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """A CSV file of rows with the same keys. Raises SaveFailed if it cannot be written."""
    stream = io.StringIO(newline="")
    write_csv(stream, list(rows[0]), rows)
    write_text_atomic(path, stream.getvalue())
