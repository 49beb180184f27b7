"""What a folder of results is made of, so that a command that was stopped goes on where it was.

A line per event, appended, so that parts of one job can write it together and a folder of many
thousand images costs no more per image than one of a few.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from feedseg.inference.outputs.plan import ImageTask
from feedseg.io import ngff
from feedseg.runtime import files, json_files

NAME = "feedseg-predict.jsonl"
_FORMER_NAME = "feedseg-predict.json"  # one object, rewritten for each image


class Record:
    """The record of a folder of results. what: the model and the options, as plain data.

    `{"what": ..., "id": ...}` states a model and options once, `{"of": id, "begun": place}` and
    `{"of": id, "done": place, ...}` an image: where its labels lie in the folder, its path, size
    and time, and the names of its files. The last line of a place counts.
    """

    def __init__(self, folder: Path, what: dict):
        self._path, self._what = folder / NAME, what
        self.text = files.to_json(what)
        self._id = hashlib.sha256(self.text.encode()).hexdigest()[:16]
        self._stated = False
        self._entries = self._former(folder / _FORMER_NAME)  # the last line of each place
        for line in _lines(self._path):
            self._stated |= line.get("id") == self._id
            if place := line.get("done") or line.get("begun"):
                self._entries[str(place)] = line

    def has(self, job: ImageTask) -> bool:
        """Whether all files of a job are there and are of its image as it is now."""
        there = self._entries.get(self._place(job)) == self._entry(job)
        return there and all(path.exists() for path in job.outputs())

    def began(self, job: ImageTask) -> bool:
        """Whether this command was stopped while it wrote the files of a job."""
        place = self._place(job)
        return self._entries.get(place) == {"of": self._id, "begun": place}

    def begin(self, job: ImageTask) -> None:
        """The files of a job are written from now on. Raises SaveFailed."""
        self._add({"of": self._id, "begun": self._place(job)})

    def add(self, job: ImageTask) -> None:
        """A job is done. Raises SaveFailed."""
        self._add(self._entry(job))

    def key(self, job: ImageTask) -> str:
        """Of the model, the options and the image as it is now."""
        return files.to_json([self._what, str(job.image.resolve()), _mark(job)])

    def _place(self, job: ImageTask) -> str:
        """Of the labels in the folder: `day1/a_labels.tif`."""
        return job.labels.relative_to(self._path.parent).as_posix()

    def _entry(self, job: ImageTask) -> dict:
        image = {"image": str(job.image.resolve()), **_mark(job)}
        return {"of": self._id, "done": self._place(job), **image}

    def _add(self, line: dict) -> None:
        lines = [line] if self._stated else [{"what": self._what, "id": self._id}, line]
        files.append_line(self._path, "\n".join(map(files.to_json, lines)))
        self._stated = True
        self._entries[line.get("done") or line["begun"]] = line

    def _former(self, path: Path) -> dict[str, dict]:
        """The entries of a record of the former form."""
        try:
            content = json_files.read(path)
            if content["what"] != self._what:
                return {}
            done = {k: {"of": self._id, "done": k, **v} for k, v in content["done"].items()}
            begun = content["begun"]
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return {}
        return done | ({begun: {"of": self._id, "begun": begun}} if begun else {})


def _lines(path: Path) -> Iterator[dict]:
    """The objects of a JSON-lines file; what is torn or no object is passed over."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        for line in stream:
            if (row := files.json_row(line)) is not None:
                yield row


def _mark(job: ImageTask) -> dict:
    """Size and time of the image, names of the results."""
    names = [path.name for path in job.outputs()]
    return {**ngff.stamp(job.image), "files": names}
