"""The file of a piece: its cases, each written when it is done, and what was left out."""

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from feedseg.runtime.files import write_json_atomic

MOST_TEXT = 500  # characters of an error that are kept


class Recorder:
    """Keeps what a piece finds in one JSON file that is whole after every case.

    path: the file; seconds: how long the piece may take from now; dry: at toy size.
    """

    def __init__(self, path: Path, name: str, seconds: float, dry: bool):
        self.dry = dry
        self._path, self._begun, self._limit = path, time.monotonic(), seconds
        self._content = {"piece": name, "dry": dry, "limit_s": round(seconds, 1)}
        self._content |= {"complete": False, "facts": {}, "cases": [], "left_out": []}
        self._write()

    def beside(self, name: str) -> Path:
        """The file of another piece."""
        return self._path.with_name(f"{name}.json")

    def log(self, name: str) -> Path:
        """A file for the messages of a process of this piece; it goes with the machine."""
        folder = Path(tempfile.gettempdir()) / "feedseg-gpu-logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.txt"

    def left(self) -> float:
        """Seconds until the limit."""
        return self._limit - (time.monotonic() - self._begun)

    def facts(self, **values) -> None:
        """What holds for all cases."""
        self._content["facts"] |= values
        self._write()

    def add(self, case: str, **values) -> None:
        """A case with its numbers."""
        self._content.pop("running", None)
        self._content["cases"].append({"case": case, **values})
        self._write()
        print(f"  {case}: {_short(values)}", flush=True)

    def leave_out(self, case: str, why: str) -> None:
        """A case that is not measured."""
        self._content["left_out"].append({"case": case, "why": why})
        self._write()
        print(f"  left out: {case}: {why}", flush=True)

    def measure(self, case: str, action: Callable[[], dict], least_s: float = 0) -> dict | None:
        """Add what an action returns, or its error; leave it out with less time than `least_s`."""
        if self.left() < least_s:
            self.leave_out(case, f"{self.left():.0f} s are left, it takes about {least_s:.0f} s")
            return None
        begun = time.monotonic()
        self._content["running"] = case
        self._write()
        try:
            found = action()
        except Exception as error:  # whatever it is: the other cases go on
            self.add(case, error=f"{type(error).__name__}: {str(error)[:MOST_TEXT]}")
            return None
        self.add(case, **found, case_s=round(time.monotonic() - begun, 2))
        return found

    def end(self) -> None:
        """All cases are done or left out."""
        self._content |= {"complete": True}
        self._write()

    def _write(self) -> None:
        self._content["seconds"] = round(time.monotonic() - self._begun, 1)
        write_json_atomic(self._path, self._content)


def _short(values: dict) -> str:
    """The single numbers and words of a case, for the console."""
    plain = {k: v for k, v in values.items() if isinstance(v, int | float | str)}
    text = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items()
    )
    return text[:300]
