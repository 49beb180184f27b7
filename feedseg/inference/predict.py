"""Segmentation of image files with a trained model: class labels for Fiji, and more on request.

Existing files are refused before anything is computed; a file appears only when it is complete.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.inference import backends, remarks, rescaling, segment
from feedseg.inference.bundled import fingerprint
from feedseg.inference.outputs import channel_maps
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.inference.outputs.partial import Unfinished
from feedseg.inference.outputs.plan import (
    ImageTask,
    OutputOptions,
    plan_jobs,
    refuse_existing,
)
from feedseg.inference.outputs.record import Record
from feedseg.inference.outputs.writer import Outputs
from feedseg.inference.predictor import Predictor
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.source import open_source
from feedseg.io.writers import labels as labels_writer
from feedseg.runtime import console, escape, notes
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import to_json
from feedseg.runtime.output_lock import hold_folder
from feedseg.runtime.prefetch import ahead


@notes.fresh()
def predict(
    model: str | Path | Sequence[str | Path],
    inputs: Path | Sequence[Path],
    output: Path,
    *,
    channels: Sequence[int | str] = (),
    probabilities: str = "",
    uncertainty: bool = False,
    overlay: bool = False,
    tables: bool = False,
    instances: InstanceSpec | None = None,
    form: str = "tiff",
    overwrite: bool = False,
    tile: int = 0,
    checkpoint: str = "best",
    dihedral: bool = False,
    rotations: int = 0,
    rounds: int = 0,
    backend: str = "",
    normalization: str = "",
    value_range: tuple[float, float] = (),
    scale: float | None = None,
    axes: str = "",
    interpret: str = "auto",
    fill_missing: bool = False,
    series: str = "",
    z: str = "",
    channel_files: Sequence[str] = (),
    progress: bool = True,
) -> list[Path]:
    """Segments images with a trained model: files, folders of them, patterns.

    Writes `<stem>_labels.tif` (8-bit class ids with colors, names and the input's calibration)
    into the folder `output`.
    model: a run directory, a model file, or the name of a bundled one; the probabilities of
    several are averaged (`loading.load`).
    channels: of the images, by number from 1 or by name, that the model is to see; none: all.
    probabilities: `<stem>_probabilities.tif`, a channel per class, of this type
    (`channel_maps.TYPES`). uncertainty: `<stem>_uncertainty.tif`, how far the answers of ensemble
    members, rounds or orientations (with dihedral) disagree, float, in bits
    (`inference.uncertainty.disagreement`). overlay: `<stem>_overlay.png`, the first page tinted by
    class, at most 2048 px wide and high. tables: `<stem>_classes.csv` and `<stem>_objects.csv`,
    areas and connected components, in the image's unit too where it has one
    (`feedseg.inference.outputs.objects`). instances: `<stem>_instances.tif` and `.csv`, ids, sizes
    and places of single objects. form: of the labels, tiff (for Fiji), ome-tiff or ome-zarr
    (`<stem>_labels.ome.zarr`). tile: side of the square the network sees at once, px; 0 chooses it.
    checkpoint: `best` (highest validation mean IoU) or `latest`. dihedral: average the
    probabilities over 8 rotations and mirrors (8 times the work). rotations: average them over so
    many rotations by equal angles (see `inference.rotation`). rounds: of a network with feedback,
    0: as trained. backend: jax, or onnx for a file that ends in .onnx, which needs no JAX; none: by
    the file. normalization, value_range: of gray values, instead of the model's
    (`segment.with_normalization`). scale: the network sees images so many times as large, results
    keep their size; None: by the pixel sizes of image and training (`rescaling.choose`). axes,
    interpret, fill_missing, series, z, channel_files: how files are read
    (`feedseg.io.reading.ReadOptions`).
    Given again, it goes on where it was stopped: what this model made of the same images with the
    same options is left as it is, and so are the rows made of an image, unless
    probabilities or uncertainty are asked for. Memory grows little with the width of an image and
    not with its height or its pages; with `rotations` and `instances` with the whole page. Returns
    the files written. Raises UserError, naming the file, for bad images, for images that do not fit
    the model, and for existing files unless `overwrite`; InUse while a command with another model
    or other options writes into `output`.
    """
    how = ReadOptions(
        axes, interpret, fill_missing, tuple(channels), series, z, tuple(channel_files)
    ).checked()
    rescaling.check(scale)
    if rotations < 0:
        raise UserError(f"--rotations {rotations}: must not be below 0")
    if probabilities not in ("", *channel_maps.TYPES):
        raise UserError(f"probabilities as {probabilities!r}: use {', '.join(channel_maps.TYPES)}")
    labels_writer.require(form, Path(output))
    wanted = OutputOptions(probabilities, uncertainty, overlay, tables, instances, form)
    jobs = plan_jobs(inputs, Path(output), wanted, how.channel_files)
    made_with = {
        "model": fingerprint(model, checkpoint),
        **dict(tile=tile, rotations=rotations, dihedral=dihedral),
        **dict(rounds=rounds, checkpoint=checkpoint, channels=list(channels)),
        "wanted": [probabilities, instances and list(instances)],
        "read": [normalization, list(value_range), scale, *how.stated()],
    }
    with hold_folder(Path(output), to_json(made_with)):
        record = Record(Path(output), made_with)
        if not overwrite:
            jobs = [job for job in jobs if not record.has(job)]
            refuse_existing([job for job in jobs if not record.began(job)])
        if not jobs:
            return []
        only_labels = not probabilities and not uncertainty and rotations < 2
        kind = dict(
            dihedral=dihedral, uncertainty=uncertainty, only_labels=only_labels, scale=scale
        )
        predictor = backends.load(model, checkpoint, rounds, backend=backend, **kind)
        predictor = segment.with_normalization(predictor, normalization, value_range)
        if instances:
            instances.check(predictor.class_names)
        if progress and (rule := segment.tile_rule(predictor)):
            console.warn(rule)
        options = ImageOptions(tile, rotations, scale, how)
        return predict_files(predictor, jobs, options, progress=progress, record=record)


class ImageOptions(NamedTuple):
    """How every image is read and seen; see `predict`."""

    tile: int = 0
    rotations: int = 0
    scale: float | None = None
    how: ReadOptions = AS_STATED


AS_TRAINED = ImageOptions()


def predict_files(
    predictor: Predictor,
    jobs: list[ImageTask],
    options: ImageOptions = AS_TRAINED,
    *,
    progress: bool = True,
    record: Record | None = None,
) -> list[Path]:
    """Reads, segments and writes file after file; returns the files written.

    An image that fails does not stop the others: its error is raised when they are done.
    record: where it is noted what was begun and done, so that a stopped command can go on.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    written, failures, empty = [], [], []
    sizes = remarks.SizeCheck(predictor)
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} {rate_fmt} [{remaining} left]"
    total = 1e-6 + _total(jobs, options.how) if progress and terminal else None
    with tqdm(
        total=total,
        desc="compiling",
        bar_format=form,
        unit="MPixel",
        disable=not (progress and terminal),
    ) as bar:
        for job in jobs:
            try:
                nothing = _predict_file(predictor, job, options, sizes, bar, record)
            except UserError as error:
                failures.append(error)
                if len(jobs) > 1:
                    console.warn(f"feedseg: {error}")
                continue
            written += job.outputs()
            empty += [job.image] if nothing else []
            if record:
                record.add(job)
            if progress and not terminal:
                console.warn(escape.visible(f"{job.image} -> {job.labels}"))
    remarks.on_nothing(empty, len(jobs), predictor)
    sizes.say()
    if len(failures) > 1:
        raise UserError(f"{len(failures)} of {len(jobs)} images failed, the first: {failures[0]}")
    if failures:
        raise failures[0]
    return written


def _total(jobs: list[ImageTask], how: ReadOptions) -> float:
    """Megapixels of all images."""
    return sum(_megapixels(job.image, how) for job in jobs)


def _megapixels(path: Path, how: ReadOptions) -> float:
    """Of all pages of an image; 0 where it cannot be read, an error that follows."""
    try:
        with open_source(path, how) as source:
            return source.count * source.height * source.width / 1e6
    except UserError:
        return 0.0


def _predict_file(
    predictor: Predictor,
    job: ImageTask,
    options: ImageOptions,
    sizes: remarks.SizeCheck,
    bar,
    record: Record | None,
) -> bool:
    """Writes the outputs of one image file, streamed from slab to slab; whether it is all of the
    first class.
    """
    tile, rotations, how = options.tile, options.rotations, options.how
    others = False  # than the first class
    sizes.begin_image()
    with open_source(job.image, how) as file, ExitStack() as files:
        source = segment.FittingImage(file, predictor)
        outputs = Outputs(job, source, predictor, files, how)
        scale = rescaling.choose(job.image, outputs.calibration, predictor, options.scale)
        bar.set_description(console.shown(job.image.name, sys.stderr), refresh=False)

        kept = files.enter_context(_kept(job, record))

        def missing(done: int) -> Iterator[np.ndarray]:
            return segment.predict_rows(predictor, source, tile, rotations, done, scale)

        def labels() -> Iterator[np.ndarray]:
            nonlocal others
            for result in kept.then(source.width, missing):
                bar.update(result.shape[0] * result.shape[1] / 1e6)
                ids = outputs.add(result)
                kept.add(ids)
                sizes.add(ids)
                others |= bool(ids.any())
                yield ids

        rows = ahead(labels())
        files.callback(rows.close)
        first = next(rows)  # an image that cannot be segmented leaves nothing behind
        if record:
            record.begin(job)
        outputs.write(chain([first], rows))
    remarks.on_range(job.image, source.brightest, source.dtype, predictor)
    sizes.end_image(job.image, source.height, scale)
    return not others


def _kept(job: ImageTask, record: Record | None) -> Unfinished:
    """What an earlier command has made of an image; nothing where more than class ids is needed."""
    more = job.probabilities or job.uncertainty
    return Unfinished(job.labels, record.key(job) if record and not more else "")
