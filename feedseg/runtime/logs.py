"""What a run says: lines on stdout, kept in log.txt, and a progress bar on a terminal.

Of several processes only process 0 speaks.
"""

import contextlib
import sys
import time
from pathlib import Path

from tqdm import tqdm

from feedseg.runtime import console, escape, files, processes


class Log:
    """Lines with the time since the start; after `keep_in` also in a file.

    name: begins every line on the console, where several runs write.
    """

    def __init__(self, name: str = ""):
        self._name = name
        self._start = time.monotonic()
        self._stream = None

    def keep_in(self, path: Path) -> None:
        """Add the following lines to a file. Raises SaveFailed if it cannot be opened."""
        processes.from_first(self._open, path)

    def _open(self, path: Path) -> None:
        with files.saving(path):
            self._stream = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, text: str) -> None:
        if not processes.is_first():
            return
        for line in escape.visible_lines(text).split("\n"):
            with contextlib.suppress(BrokenPipeError):  # nobody reads on; the run goes on
                tqdm.write(console.shown(self._name + line, sys.stdout), file=sys.stdout)
                sys.stdout.flush()
            self._keep(line)

    def _keep(self, line: str) -> None:
        """A line for the file; on a full disk the file ends, not the run."""
        if not self._stream:
            return
        try:
            self._stream.write(f"[{time.monotonic() - self._start:8.1f} s] {line}\n")
        except OSError as error:
            stream, self._stream = self._stream, None
            with contextlib.suppress(OSError):
                stream.close()
            console.warn(f"{stream.name} ends here: {error.strerror or error}")


class Progress:
    """Bar over all steps with loss, validation mIoU, images/s and the time left.

    Not on a terminal, or when switched off, nothing is drawn: the line per epoch is the progress.
    """

    def __init__(self, total_steps: int, done: int, batch: int, enabled: bool):
        self._batch = batch
        self._shown: dict[str, str] = {}
        self._bar = tqdm(
            total=total_steps,
            initial=done,
            unit="step",
            disable=not (enabled and processes.is_first() and sys.stderr.isatty()),
            dynamic_ncols=True,
        )

    def advance(self, steps: int, loss: float) -> None:
        self._shown["loss"] = f"{loss:.4f}"
        rate = self._bar.format_dict["rate"]
        if rate:
            self._shown["img/s"] = f"{rate * self._batch:.1f}"
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(steps)

    def validated(self, miou: float) -> None:
        self._shown["val mIoU"] = f"{100 * miou:.2f}"

    def close(self) -> None:
        self._bar.close()
