"""`metrics.csv` in the run's directory: a row per epoch, the names of the scalars in its head."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from feedseg.runs import loggers
from feedseg.runtime import files

PACKAGE = ""


class Logger(loggers.Logger):
    """Values as Python prints them, so that they are read back as they were; none: empty."""

    def __init__(self, run: Path, rows: Sequence[Mapping]):
        self._path = run / "metrics.csv"
        speeds = {row["epoch"]: row for row in self._read()}  # and what else is in no metrics.jsonl
        self._columns: list[str] = []
        self._write([speeds.get(str(row["epoch"]), {}) | row for row in rows])

    def scalars(self, step: int, row: Mapping[str, float | None]) -> None:
        if set(row) <= set(self._columns):
            files.append_line(self._path, self._lines([row]))
        else:
            self._write([*self._read(), row])

    def _read(self) -> list[dict]:
        if not self._path.exists():
            return []
        text = self._path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]  # the last line is torn where a run was killed
        return [row for row in csv.DictReader(io.StringIO(whole)) if row.get("epoch")]

    def _write(self, rows: Sequence[Mapping]) -> None:
        """The file anew, with the columns of these rows."""
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        head = dict(zip(self._columns, self._columns, strict=True))
        files.write_text_atomic(self._path, f"{self._lines([head, *rows])}\n" if rows else "")

    def _lines(self, rows: Iterable[Mapping]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue().removesuffix("\n")
