"""The folder of a report; files of other origin are never replaced."""

import contextlib
from pathlib import Path

from feedseg.runs.directory import is_run, read_json
from feedseg.runtime import files
from feedseg.runtime.errors import UserError

RECORD = "provenance.json"
FILES = ("table.md", "table.tex", "table.csv", "runs.csv", "tests.csv", "curves.png", "curves.pdf")
FILES += ("boxes.png", "boxes.pdf", "gallery.png", "index.html", RECORD)
_MAKER = "feedseg report"


class ReportFolder:
    """Output folder of a report, there and held. Its record lists what a later one may replace."""

    def __init__(self, path: Path):
        """Raises UserError if the folder is a run or has files of the same names from elsewhere."""
        self.path = Path(path)
        if is_run(self.path):
            raise UserError(f"{self.path} is the directory of a run; choose another --output")
        former = self._own_files()
        for name in FILES:
            if name not in former and (self.path / name).exists():
                raise UserError(
                    f"{self.path / name} exists and is not from a report; choose another --output"
                )
        self._kept: set[str] = set()
        self._record({"files": FILES})  # an interrupted report can be repeated

    def _own_files(self) -> list[str]:
        record = self.path / RECORD
        with contextlib.suppress(UserError, AttributeError):
            content = read_json(record) if record.is_file() else {}
            if content.get("made_by") == _MAKER:
                return [*content.get("files", []), RECORD]
        return []

    def keep(self, *names: str) -> None:
        """Count these files as part of the current report."""
        self._kept |= set(names)

    def write(self, name: str, text: str) -> None:
        """Write a text file of the report."""
        files.write_text_atomic(self.path / name, text)
        self.keep(name)

    def finish(self, facts: dict) -> None:
        """Write the record; remove files that only an earlier report had."""
        for name in set(FILES) - self._kept - {RECORD}:
            (self.path / name).unlink(missing_ok=True)
        self._record({**facts, "files": sorted(self._kept)})

    def _record(self, facts: dict) -> None:
        files.write_json_atomic(self.path / RECORD, {"made_by": _MAKER, **facts})
