"""Files for TensorBoard, in `tensorboard/` of the run's directory: `tensorboard --logdir runs`.

Written by tensorboardX, without TensorFlow, event by event in this thread: its own writer has a
queue, at which a run would wait forever once the disk is full.
"""

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from feedseg.runs import loggers

PACKAGE = "tensorboardX"
_HEAD, _CHECKSUM = struct.Struct("<QI"), 4  # of a record: length and its checksum; of the content


class Logger(loggers.Logger):
    """One event of scalars per epoch, at its last step; the configuration as text at step 0.

    Starting again copies the events that stay, with their times, to a new file.
    """

    def __init__(self, run: Path, rows: Sequence[Mapping]):
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder = run / "tensorboard"
        folder.mkdir(exist_ok=True)
        old = sorted(folder.glob("events.out.tfevents.*"))
        last = rows[-1]["step"] if rows else 0
        self._kept = self._read(old, last)
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}.feedseg"))
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        for event in self._kept.values():
            self._write(event)
        for row in rows:
            if (row["step"], "epoch") not in self._kept:
                self.scalars(row["step"], row)
        for path in old:
            path.unlink()

    def config(self, config: dict) -> None:
        from tensorboardX.summary import text

        lines = json.dumps(config, indent=1).splitlines()
        summary = text("config", "\n".join(f"    {line}" for line in lines))  # as Markdown
        if (0, summary.value[0].tag) not in self._kept:
            self._add(0, summary)

    def scalars(self, step: int, row: Mapping[str, float | None]) -> None:
        value = self._summary.Value
        known = {key: number for key, number in row.items() if key != "step" and number is not None}
        self._add(
            step, self._summary(value=[value(tag=k, simple_value=v) for k, v in known.items()])
        )

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        for name, path in pictures.items():
            with Image.open(path) as picture:
                width, height = picture.size
            image = self._summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
            )
            self._add(step, self._summary(value=[self._summary.Value(tag=name, image=image)]))

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, summary) -> None:
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def _read(self, paths: Sequence[Path], last: int) -> dict:
        """Events up to the step `last`, each once, by step and first tag."""
        found = {}
        for record in (each for path in paths for each in _records(path.read_bytes())):
            event = self._event.FromString(record)
            if event.summary.value and event.step <= last:
                found.setdefault((event.step, event.summary.value[0].tag), event)
        return dict(sorted(found.items(), key=lambda item: item[0][0]))


def _records(content: bytes) -> Iterator[bytes]:
    """The records of an event file; one that a kill has torn ends it."""
    at = 0
    while at + _HEAD.size <= len(content):
        length, _ = _HEAD.unpack_from(content, at)
        begin = at + _HEAD.size
        at = begin + length + _CHECKSUM
        if at <= len(content):
            yield content[begin : begin + length]
