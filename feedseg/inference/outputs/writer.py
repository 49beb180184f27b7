"""The files made of one segmented image, fed with its probabilities row by row."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from feedseg.inference.outputs.channel_maps import Planes, encoded
from feedseg.inference.outputs.instance_maps import InstanceMaps
from feedseg.inference.outputs.objects import ComponentStats, write_tables
from feedseg.inference.outputs.plan import ImageTask
from feedseg.inference.outputs.preview import Preview
from feedseg.inference.predictor import Predictor
from feedseg.io import images
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.source import ImageSource, page_axes
from feedseg.io.writers import labels as labels_writer


class Outputs:
    """What a job asks for; temporary files are removed with `files`."""

    def __init__(
        self,
        job: ImageTask,
        source: ImageSource,
        predictor: Predictor,
        files: ExitStack,
        how: ReadOptions = AS_STATED,
    ):
        """how: the image is read."""
        self._job, self._source, self._predictor = job, source, predictor
        self._names = predictor.class_names
        self.calibration = images.read_calibration(job.image, how)
        self._axes = page_axes(job.image, how)
        self._shape = (source.count, source.height, source.width)
        self._rows = 0  # of all pages

        def kept(path: Path | None, kind: type, *arguments):
            return files.enter_context(kind(path, self._shape, *arguments)) if path else None

        wanted = job.wanted
        self._soft = kept(job.probabilities, Planes, len(self._names), wanted.probabilities)
        self._spread = kept(job.uncertainty, Planes, 1)
        first = job.instances[0] if job.instances else None
        self._instances = kept(first, InstanceMaps, wanted.instances, self._names)
        self._preview = Preview(self._shape[1:]) if job.overlay else None
        self._measure = (
            ComponentStats(self._names, self.calibration, ignore=()) if job.tables else None
        )

    def add(self, result: np.ndarray) -> np.ndarray:
        """The next rows of a page, as `segment.predict_rows` gives them.

        [h, W, K] probabilities, or with the uncertainty as one channel more, or class ids.
        Returns their labels, [h, W] uint8.
        """
        probabilities = result[..., : len(self._names)]
        if result.dtype == np.uint8:
            labels = result[..., 0]
        else:
            labels = probabilities.argmax(-1).astype(np.uint8)
        if self._soft:
            self._soft.add(encoded(probabilities, self._job.wanted.probabilities))
        if self._spread:
            self._spread.add(result[..., -1:])
        if self._instances:
            self._instances.add(labels)
        if self._preview:
            self._preview.add(labels)
        self._rows += len(labels)
        if self._measure:
            self._measure.add(labels)
            if self._rows % self._shape[1] == 0:
                self._measure.end_page()
        return labels

    def write(self, labels: Iterable[np.ndarray]) -> None:
        """All files; labels: what `add` returned, slab by slab, which may be made on the way.

        Raises SaveFailed if one cannot be written.
        """
        job, colors = self._job, self._predictor.class_colors
        labels_writer.write_labels(
            job.labels, labels, self._names, colors, self.calibration, self._shape, self._axes
        )
        if self._soft:
            self._soft.write(job.probabilities, self._names, self.calibration, self._axes)
        if self._spread:
            title = ("uncertainty, bits",)
            self._spread.write(job.uncertainty, title, self.calibration, self._axes)
        if self._instances:
            self._instances.write(job.instances, self.calibration, self._axes)
        if self._preview:
            self._preview.write(job.overlay, self._source, colors)
        if self._measure:
            write_tables(job.tables, self._measure)
