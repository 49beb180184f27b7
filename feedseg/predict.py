"""Applies a trained model to image files: class labels for Fiji, optionally probabilities.

Each page is normalised by its own limits (never per tile), cut into tiles with a true halo, and
written when whole. Nothing is computed before it is sure that no file would be overwritten.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from feedseg import image_io, normalize, rotation, tiling
from feedseg.errors import UserError


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


class Job(NamedTuple):
    """One input file and the files made from it."""

    image: Path
    labels: Path
    probabilities: Path | None
    uncertainty: Path | None

    def outputs(self) -> list[Path]:
        """The files to be written."""
        return [path for path in (self.labels, self.probabilities, self.uncertainty) if path]


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
    Returns the files written. Raises UserError, naming the file, for bad images, for images that
    do not fit the model, and for existing files unless `overwrite`.
    """
    if rotations < 0:
        raise UserError(f"--rotations {rotations}: must not be below 0")
    jobs = plan_jobs(Path(inputs), Path(output), probabilities, uncertainty)
    if not overwrite:
        refuse_existing(jobs)
    from feedseg import compiler
    from feedseg.loading import for_images, load  # brings JAX, not needed to refuse a command

    compiler.keep_programs()
    trained = for_images(load(model, checkpoint, rounds), dihedral, uncertainty)
    return predict_files(trained, jobs, tile=tile, rotations=rotations, progress=progress)


def plan_jobs(
    inputs: Path, output: Path, probabilities: bool, uncertainty: bool = False
) -> list[Job]:
    """The files to read and to write.

    Raises UserError if there is no image, or if a folder would receive its own results (they
    would be taken for images the next time).
    """
    files = image_io.list_images(inputs)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; --output takes a folder")
    if inputs.is_dir() and inputs.resolve() == output.resolve():
        raise UserError(f"{output}: is the folder of the images; give another --output folder")
    names = output_names(files)
    return [
        Job(
            file,
            output / f"{name}_labels.tif",
            output / f"{name}_probabilities.tif" if probabilities else None,
            output / f"{name}_uncertainty.tif" if uncertainty else None,
        )
        for file, name in zip(files, names, strict=True)
    ]


def output_names(files: list[Path]) -> list[str]:
    """A name per file: its stem; `stem_suffix` for all if two files share a stem (in any case).

    Raises UserError if two names differ in upper and lower case only.
    """
    names = [file.stem for file in files]
    if _repeated(names):
        names = [f"{file.stem}_{file.suffix[1:].lower()}" for file in files]
    if repeated := _repeated(names):
        raise UserError(f"{files[0].parent}: several images are called {repeated}; rename them")
    return names


def _repeated(names: list[str]) -> str | None:
    name, count = Counter(name.lower() for name in names).most_common(1)[0]
    return name if count > 1 else None


def refuse_existing(jobs: list[Job]) -> None:
    """Raises UserError if a file to be written is there already."""
    planned = [path for job in jobs for path in job.outputs()]
    there = [path for path in planned if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: exists; add --overwrite or choose another --output")


def predict_files(
    trained: Trained,
    jobs: list[Job],
    *,
    tile: int = 0,
    rotations: int = 0,
    progress: bool = True,
) -> list[Path]:
    """Reads, segments and writes file after file; returns the files written."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    written: list[Path] = []
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} files [{elapsed}<{remaining}]"
    with tqdm(
        total=len(jobs), desc="compiling", bar_format=form, disable=not (progress and terminal)
    ) as bar:
        for job in jobs:
            written += _predict_file(trained, job, tile, rotations, bar)
            if progress and not terminal:
                print(f"{job.image} -> {job.labels}", file=sys.stderr, flush=True)
    return written


def _predict_file(trained: Trained, job: Job, tile: int, rotations: int, bar) -> list[Path]:
    """Outputs of one image file; probabilities are streamed page by page."""
    pages = fit_channels(job.image, image_io.read_array(job.image), trained.channels)
    check_range(job.image, pages, trained.normalization)
    calibration = image_io.read_calibration(job.image)
    count, height, width = pages.shape[:3]
    work = count * _tiles_of_page(trained, height, width, tile, rotations)
    names = trained.class_names
    labels = np.empty((count, height, width), np.uint8)
    spread = np.empty((count, height, width), np.float32) if job.uncertainty else None

    def done() -> None:
        bar.set_description(job.image.name, refresh=False)
        bar.update(1 / work)

    def probability_pages() -> Iterator[np.ndarray]:
        for index, page in enumerate(pages):
            result = predict_page(trained, job.image, page, tile, rotations, done)
            probability = result[..., : len(names)]
            labels[index] = probability.argmax(-1)
            if spread is not None:
                spread[index] = result[..., -1]
            yield probability

    if job.probabilities:
        shape = (count, height, width, len(names))
        image_io.write_probabilities(
            job.probabilities, probability_pages(), names, calibration, shape
        )
    else:
        for _ in probability_pages():
            pass
    if spread is not None:
        pages = (page[..., None] for page in spread)
        image_io.write_probabilities(
            job.uncertainty, pages, ("uncertainty, bits",), calibration, (*spread.shape, 1)
        )
    image_io.write_labels(job.labels, labels, names, trained.class_colors, calibration)
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


def _tiles_of_page(trained: Trained, height: int, width: int, tile: int, rotations: int) -> int:
    """How often the network is applied to a page."""
    sizes = [rotation.canvas(height, width, angle) for angle in rotation.angles(max(1, rotations))]
    return sum(_layout(trained, *size, tile).num_tiles for size in sizes)


def predict_page(
    trained: Trained,
    path: Path,
    page: np.ndarray,
    tile: int,
    rotations: int,
    done: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Class probabilities of one page, [H, W, K] float32, by the limits of that page.

    page: [H, W, C] raw, from the image `path`; done: called after each tile.
    """
    low, high = normalize.limits(page, trained.normalization, trained.percentiles)
    layout = _layout(trained, *page.shape[:2], tile)

    def network(image: np.ndarray) -> np.ndarray:
        plan = _layout(trained, *image.shape[:2], tile)
        return tiling.apply_tiled(image, trained.apply, plan, done)

    try:
        result = rotation.mean(network, normalize.apply(page, low, high), max(1, rotations))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        smaller = tiling.round_up(max(layout.window) // 2, trained.stride)
        smaller = max(smaller, tiling.smallest_tile(trained.halo, trained.stride))
        raise UserError(f"{path}: out of memory; try --tile {smaller}") from None
    if not np.isfinite(result).all():
        raise UserError(f"{path}: the model gives NaN for this image; use another checkpoint")
    return result


def fit_channels(path: Path, pages: np.ndarray, channels: int) -> np.ndarray:
    """Pages [P, H, W, C] with the model's number of channels.

    Equal channels are one grey channel. Raises UserError for colour where the model takes grey
    and for any other difference: which channel counts is the user's decision.
    """
    have = pages.shape[3]
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
