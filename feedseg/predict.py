"""Applies a trained model to image files: class labels for Fiji, optionally probabilities.

Each page is normalised by its own limits (never per tile), cut into tiles with a true halo, and
written when whole. Nothing is computed before it is sure that no file would be overwritten.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from feedseg import image_io, normalize, rotation, slabs, tiling
from feedseg.box import fingerprint
from feedseg.errors import UserError
from feedseg.jobs import Job, Record, plan_jobs, refuse_existing
from feedseg.planes import Planes


class Trained(Protocol):
    """What prediction needs of a trained model."""

    apply: Callable  # image [N, H, W, C] float32 in [0, 1] -> probabilities [N, H, W, K]
    stride: int  # total down-sampling, px
    halo: int  # radius of the receptive field, px
    window: int  # px, side of the windows that a network of whole images takes; 0: any
    margin: int  # px on each side of a tile without result (unpadded convolutions), else 0
    channels: int
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]  # RGB 0-255
    normalization: str
    percentiles: tuple[float, float]


def predict(
    model: str | Path,
    inputs: Path,
    output: Path,
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    tile: int = 0,
    checkpoint: str = "best",
    dihedral: bool = False,
    rotations: int = 0,
    rounds: int = 0,
    uncertainty: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Segments an image file or every image of a folder with a trained model.

    Writes `<stem>_labels.tif` (8-bit class ids with colours, names and the input's calibration)
    into the folder `output`, and with `probabilities` `<stem>_probabilities.tif` (float channels).
    model: a run directory, a model file, or the name of one that comes along (`loading.load`).
    tile: side of the square the network sees at once, px; 0 chooses it.
    checkpoint: `best` (highest validation mean IoU) or `latest`.
    dihedral: average the probabilities over 8 rotations and mirrors (8 times the work).
    rotations: average them over so many rotations by equal angles (see `feedseg.rotation`).
    rounds: of a network with feedback, 0: as trained.
    uncertainty: `<stem>_uncertainty.tif`, how far the answers of ensemble members, rounds or
    orientations (with dihedral) disagree, float, in bits (`feedseg.uncertainty.disagreement`).
    Given again, it goes on where it was stopped: what this model made of the same images with the
    same options is left as it is. Memory does not grow with the images but with `rotations`.
    Returns the files written. Raises UserError, naming the file, for bad images, for images that
    do not fit the model, and for existing files unless `overwrite`.
    """
    if rotations < 0:
        raise UserError(f"--rotations {rotations}: must not be below 0")
    options = dict(
        tile=tile, rotations=rotations, dihedral=dihedral, rounds=rounds, checkpoint=checkpoint
    )
    jobs = plan_jobs(Path(inputs), Path(output), probabilities, uncertainty)
    record = Record(Path(output), {"model": fingerprint(model, checkpoint), **options})
    if not overwrite:
        jobs = [job for job in jobs if not record.has(job)]
        refuse_existing(jobs)
    if not jobs:
        return []
    from feedseg import compiler
    from feedseg.loading import for_images, load  # brings JAX, not needed to refuse a command

    compiler.keep_programs()
    trained = for_images(load(model, checkpoint, rounds), dihedral, uncertainty)
    return predict_files(
        trained, jobs, tile=tile, rotations=rotations, progress=progress, finished=record.add
    )


def predict_files(
    trained: Trained,
    jobs: list[Job],
    *,
    tile: int = 0,
    rotations: int = 0,
    progress: bool = True,
    finished: Callable[[Job], object] = lambda job: None,
) -> list[Path]:
    """Reads, segments and writes file after file; returns the files written.

    An image that fails does not stop the others: its error is raised when they are done.
    finished: called after each image that is done.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    written, failures = [], []
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} MPixel {rate_fmt} [{remaining} left]"
    total = sum(_megapixels(job.image) for job in jobs) if progress and terminal else None
    with tqdm(
        total=total,
        desc="compiling",
        bar_format=form,
        unit="MPixel",
        disable=not (progress and terminal),
    ) as bar:
        for job in jobs:
            try:
                written += _predict_file(trained, job, tile, rotations, bar)
            except UserError as error:
                failures.append(error)
                if len(jobs) > 1:
                    print(f"feedseg: {error}", file=sys.stderr, flush=True)
                continue
            finished(job)
            if progress and not terminal:
                print(f"{job.image} -> {job.labels}", file=sys.stderr, flush=True)
    if len(failures) > 1:
        raise UserError(f"{len(failures)} of {len(jobs)} images failed, the first: {failures[0]}")
    if failures:
        raise failures[0]
    return written


def _megapixels(path: Path) -> float:
    """Of all pages of an image; 0 where it cannot be read, which is said later."""
    try:
        with slabs.open_source(path) as source:
            return source.count * source.height * source.width / 1e6
    except UserError:
        return 0.0


def _predict_file(trained: Trained, job: Job, tile: int, rotations: int, bar) -> list[Path]:
    """Outputs of one image file, streamed from slab to slab."""
    names = trained.class_names
    calibration = image_io.read_calibration(job.image)
    with slabs.open_source(job.image) as file, ExitStack() as files:
        source = fitting(file, trained)
        shape = (source.count, source.height, source.width)
        bar.set_description(job.image.name, refresh=False)

        def planes(path: Path | None, channels: int) -> Planes | None:
            return files.enter_context(Planes(path, shape, channels)) if path else None

        soft, spread = planes(job.probabilities, len(names)), planes(job.uncertainty, 1)

        def label_slabs() -> Iterator[np.ndarray]:
            for result in source_slabs(trained, source, tile, rotations):
                bar.update(result.shape[0] * result.shape[1] / 1e6)
                if soft:
                    soft.add(result[..., : len(names)])
                if spread:
                    spread.add(result[..., -1:])
                yield result[..., : len(names)].argmax(-1).astype(np.uint8)

        labels = label_slabs()
        first = next(labels)  # an image that cannot be segmented leaves nothing behind
        image_io.write_labels(
            job.labels, chain([first], labels), names, trained.class_colors, calibration, shape
        )
        for maps, titles in ((soft, names), (spread, ("uncertainty, bits",))):
            if maps:
                maps.write(titles, calibration)
    return job.outputs()


def _layout(trained: Trained, height: int, width: int, tile: int) -> tiling.Plan:
    """Tiles of an image; a network of whole images gets windows as in its training."""
    if not trained.window:
        side = tile or tiling.automatic_tile(trained.halo, trained.stride)
        mirrored = trained.margin > 0
        return tiling.plan(height, width, side, trained.halo, trained.stride, mirrored=mirrored)
    if tile not in (0, trained.window):
        raise UserError(
            f"--tile {tile}: this network depends on the size of what it sees at once, "
            f"{trained.window} px as in training; leave it out"
        )
    halo = tiling.whole_image_halo(trained.window, trained.halo, trained.stride)
    return tiling.plan(height, width, trained.window, halo, trained.stride, exact=True)


def fitting(file: slabs.Source, trained: Trained) -> slabs.Source:
    """An image with the model's number of channels and in its range, checked as it is read."""

    def rows(page: int, start: int, stop: int) -> np.ndarray:
        pixels = fit_channels(file.path, file.rows(page, start, stop), trained.channels)
        check_range(file.path, pixels, trained.normalization)
        return pixels

    shape = (file.count, file.height, file.width, trained.channels)
    return slabs.Source(file.path, shape, file.dtype, rows)


def source_slabs(
    trained: Trained, source: slabs.Source, tile: int = 0, rotations: int = 0
) -> Iterator[np.ndarray]:
    """Probabilities of an image, page after page from top to bottom, [rows, W, K] float32.

    Every page by its own limits. With rotations a page is one slab: it is turned as a whole.
    Where memory does not suffice the tiles are halved, which is said.
    Raises UserError naming the file if the smallest are too large, or the model gives NaN.
    """
    for page in range(source.count):
        begun = False
        while True:
            layout = _layout(trained, source.height, source.width, tile)
            try:
                for slab in _page_slabs(trained, source, page, layout, tile, rotations):
                    _check_finite(source.path, slab)
                    begun = True
                    yield slab
                break
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                smaller = _half(trained, layout)
                if begun or not smaller:
                    advice = f"; try --tile {smaller}" if smaller else " for the smallest tiles"
                    raise UserError(f"{source.path}: out of memory{advice}") from None
                tile = smaller
            print(f"{source.path}: out of memory, now tiles of {tile} px", file=sys.stderr)


def _half(trained: Trained, layout: tiling.Plan) -> int:
    """Half the tile side, at least the smallest that is of use; 0 if there is none."""
    least = tiling.smallest_tile(trained.halo, trained.stride)
    half = max(least, tiling.round_up(max(layout.window) // 2, trained.stride))
    return half if half < max(layout.window) and not trained.window else 0


def _check_finite(path: Path, slab: np.ndarray) -> None:
    if not np.isfinite(slab).all():
        raise UserError(f"{path}: the model gives NaN for this image; use another checkpoint")


def _page_slabs(
    trained: Trained,
    source: slabs.Source,
    page: int,
    layout: tiling.Plan,
    tile: int,
    rotations: int,
) -> Iterator[np.ndarray]:
    limits = slabs.limits(source, page, trained.normalization, trained.percentiles)

    def read(start: int, stop: int) -> np.ndarray:
        return normalize.apply(source.rows(page, start, stop), *limits)

    def network(image: np.ndarray) -> np.ndarray:
        plan = _layout(trained, *image.shape[:2], tile)
        return tiling.apply_tiled(image, trained.apply, plan)

    if rotations > 1:
        return iter([rotation.mean(network, read(0, source.height), rotations)])
    return tiling.slabs(tiling.strips(read, layout), trained.apply, layout)


def fit_channels(path: Path, pages: np.ndarray, channels: int) -> np.ndarray:
    """Pixels [..., C] with the model's number of channels.

    Equal channels are one grey channel. Raises UserError for colour where the model takes grey
    and for any other difference: which channel counts is the user's decision.
    """
    have = pages.shape[-1]
    if have == channels:
        return pages
    if channels == 1 and (pages == pages[..., :1]).all():
        return pages[..., :1]
    if channels == 1:
        remedy = "convert it to grey (Fiji: Image > Type > 8-bit) or save the channel to segment"
    elif have == 1:
        remedy = "give the colour image the model was trained for"
    else:
        remedy = f"save its {channels} channels as they were in training"
    raise UserError(f"{path}: {have} channel(s), the model takes {channels}; {remedy}")


def check_range(path: Path, pages: np.ndarray, kind: str) -> None:
    """Raises UserError for floating point pixels that `dtype_range` would clip."""
    if kind != "dtype_range" or pages.dtype.kind != "f":
        return
    low, high = float(pages.min()), float(pages.max())
    if low < 0 or high > 1:
        raise UserError(
            f"{path}: floating point values from {low:g} to {high:g}, the model takes 0 to 1; "
            "save it as 8 or 16 bit or divide by its full scale"
        )
