"""A trained model on an image of any size: normalize, tile, predict, stitch, row by row.

Each page is normalized by its own limits, never per tile. Tiling is exact for fully convolutional
networks, whose tiles overlap by the halo; networks with global context use blended overlapping
windows of the training size.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feedseg.inference import rescaling, tiling
from feedseg.inference.predictor import Predictor
from feedseg.io import normalize, percentiles, resample
from feedseg.io.source import ImageSource
from feedseg.runtime import console
from feedseg.runtime.errors import UserError
from feedseg.runtime.prefetch import ahead
from feedseg.runtime.rounding import round_up

_WINDOWS_AHEAD = 4  # scaled while the network is busy, so that a row of them is read in time
NOT_FINITE = 255  # stands for a class where the probabilities are no numbers


def tiles_for(predictor: Predictor, height: int, width: int, tile: int = 0) -> tiling.Plan:
    """Tiles of an image; a network of whole images gets windows as in its training.

    tile: side, px, 0: chosen. Raises UserError for one that this network cannot take.
    """
    if not predictor.window:
        side = tile or predictor.tile or tiling.automatic_tile(predictor.halo, predictor.stride)
        mirrored = predictor.margin > 0
        return tiling.plan(height, width, side, predictor.halo, predictor.stride, mirrored=mirrored)
    if tile not in (0, predictor.window):
        raise UserError(
            f"--tile {tile}: this network depends on the size of what it sees at once, "
            f"{predictor.window} px as in training; leave it out"
        )
    return tiling.windows(height, width, predictor.window)


def tile_rule(predictor: Predictor) -> str:
    """A note on how images are tiled; empty where tiling is exact."""
    if not predictor.window:
        return ""
    layout = tiling.windows(1, 1, predictor.window)
    return (
        f"this network looks at {predictor.window} px at once, as in training: windows of "
        f"{predictor.window} px, blended over {layout.overlap} px"
    )


class FittingImage(ImageSource):
    """An image with the model's number of channels and in its range, checked as it is read.

    brightest: the largest gray value read so far; given_channels: of the file.
    """

    def __init__(self, file: ImageSource, predictor: Predictor):
        self._file, self._predictor, self.brightest = file, predictor, 0.0
        self.given_channels = file.channels
        shape = (file.count, file.height, file.width, predictor.channels)
        super().__init__(file.path, shape, file.dtype, self._fit)

    def _fit(self, page: int, start: int, stop: int) -> np.ndarray:
        path, predictor = self.path, self._predictor
        pixels = fit_channels(path, self._file.rows(page, start, stop), predictor.channels)
        check_range(path, pixels, predictor.normalization)
        self.brightest = max(self.brightest, float(pixels.max()))
        return pixels


def contracts(predictor: Predictor) -> tuple[tuple[str, tuple[float, float]], ...]:
    """The rules for gray values, with their percentiles; of an ensemble there can be several."""
    return predictor.contracts or ((predictor.normalization, predictor.percentiles),)


def with_normalization(
    predictor: Predictor, kind: str = "", limits: tuple[float, float] = ()
) -> Predictor:
    """The model with another rule for gray values than that of its training.

    kind: of `normalize.RULES`; limits: raw values that become 0 and 1, instead of a kind.
    Raises UserError for an unknown kind, both, or limits that are no range.
    """
    if not kind and not limits:
        return predictor
    if kind and limits:
        raise UserError("--normalization and --range exclude each other; give one of them")
    if limits and not limits[0] < limits[1]:
        raise UserError(f"--range {limits[0]:g}-{limits[1]:g}: the first must be below the second")
    if kind and kind not in normalize.RULES:
        raise UserError(f"--normalization {kind}: choose one of {', '.join(normalize.RULES)}")

    def contract(percentiles: tuple[float, float]) -> tuple[str, tuple[float, float]]:
        return ("range", tuple(limits)) if limits else (kind, percentiles)

    rule, values = contract(predictor.percentiles)
    several = tuple(contract(percentiles) for _, percentiles in predictor.contracts)
    return predictor._replace(normalization=rule, percentiles=values, contracts=several)


def predict_rows(
    predictor: Predictor,
    source: ImageSource,
    tile: int = 0,
    rotations: int = 0,
    done: int = 0,
    scale: float = 1.0,
) -> Iterator[np.ndarray]:
    """Probabilities of an image, page after page from top to bottom, [rows, W, K] float32; of a
    model that gives class ids (`predictor.only_labels`) these, [rows, W, 1] uint8.

    done: rows, counted over all pages, that are passed over. scale: the network sees pages so
    many times as large, bilinear, and its probabilities come back to the size of the image.
    Every page by its own limits. With rotations a page is one slab.
    Where memory does not suffice the tiles are halved, with a warning.
    Raises UserError naming the file if the smallest are too large, or the model gives NaN.
    """
    size = resample.scaled((source.height, source.width), (scale, scale))
    for page in range(done // source.height, source.count):
        begun, first = False, max(0, done - page * source.height)
        while True:
            layout = tiles_for(predictor, *size, tile)
            try:
                page_limits = [percentiles.limits(source, page, *c) for c in contracts(predictor)]
                read = _Page(source, page, page_limits)
                if rotations > 1:
                    slabs = _rotated(predictor, read, tile, rotations, first, scale)
                elif size == (source.height, source.width):
                    slabs = _tiled(predictor, read, layout, first)
                else:
                    slabs = _rescaled(predictor, read, layout, first)
                for slab in slabs:
                    _check_finite(source.path, slab)
                    begun = True
                    yield slab
                break
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                smaller = _half(predictor, layout)
                if begun or not smaller:
                    advice = f"; try --tile {smaller}" if smaller else " for the smallest tiles"
                    raise UserError(f"{source.path}: out of memory{advice}") from None
                tile = smaller
            console.warn(f"{source.path}: out of memory, now tiles of {tile} px")


def _half(predictor: Predictor, layout: tiling.Plan) -> int:
    """Half the tile side, at least the smallest that is of use; 0 if there is none."""
    least = tiling.smallest_tile(predictor.halo, predictor.stride)
    half = max(least, round_up(max(layout.window) // 2, predictor.stride))
    return half if half < max(layout.window) and not predictor.window else 0


def _check_finite(path: Path, slab: np.ndarray) -> None:
    whole = (slab != NOT_FINITE).all() if slab.dtype == np.uint8 else np.isfinite(slab).all()
    if not whole:
        raise UserError(f"{path}: the model gives NaN for this image; use another checkpoint")


class _Page:
    """Rows of a page, as stored and as a network takes them."""

    def __init__(self, source: ImageSource, page: int, limits: list[normalize.Limits]) -> None:
        self.size = (source.height, source.width)
        self._source, self._page, self._limits = source, page, limits

    def stored(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C]"""
        return self._source.rows(self._page, start, stop)

    def normalized(self, raw: np.ndarray) -> np.ndarray:
        """Raw pixels [..., C] by each rule for gray values, [..., C n] float32."""
        return np.concatenate([normalize.apply(raw, *each) for each in self._limits], -1)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C n] float32"""
        return self.normalized(self.stored(start, stop))


def _tiled(
    predictor: Predictor, page: _Page, layout: tiling.Plan, first: int
) -> Iterator[np.ndarray]:
    """A page from its row `first` on."""
    # Pixels are normalized window by window: a row of them is held only as it is stored.
    windows = map(page.normalized, tiling.inputs(page.stored, tiling.below(layout, first)))
    return _network_rows(predictor, windows, layout, first)


def _rescaled(
    predictor: Predictor, page: _Page, layout: tiling.Plan, first: int
) -> Iterator[np.ndarray]:
    """A page from its row `first` on, which the network sees at the size of the layout."""
    size = (layout.height, layout.width)
    there, back = resample.Resampling(page.size, size), resample.Resampling(size, page.size)

    def read(start: int, stop: int) -> np.ndarray:
        return there.rows(page.rows, start, stop)

    begin = back.first(first)
    windows = tiling.inputs(read, tiling.below(layout, begin))
    return back.stream(_network_rows(predictor, windows, layout, begin), first)


def _network_rows(
    predictor: Predictor, windows: Iterator[np.ndarray], layout: tiling.Plan, first: int
) -> Iterator[np.ndarray]:
    """Probabilities from row `first` on of what the network sees."""
    layout = tiling.below(layout, first)
    found = tiling.slabs(ahead(windows, _WINDOWS_AHEAD), predictor.apply, layout)
    return _without(found, first - (layout.rows[0].keep - layout.margin))


def _rotated(
    predictor: Predictor, page: _Page, tile: int, rotations: int, first: int, scale: float
) -> Iterator[np.ndarray]:
    """A page from its row `first` on, the mean over rotations."""

    def network(image: np.ndarray) -> np.ndarray:
        plan = tiles_for(predictor, *image.shape[:2], tile)
        return tiling.apply_tiled(image, predictor.apply, plan)

    whole = rescaling.rotated(network, page.rows(0, page.size[0]), scale, rotations)
    return iter([whole[first:]])


def _without(found: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Slabs without so many rows at the top."""
    for slab in found:
        if rows < len(slab):
            yield slab[rows:]
        rows = max(0, rows - len(slab))


def fit_channels(path: Path, pages: np.ndarray, channels: int) -> np.ndarray:
    """Pixels [..., C] with the model's number of channels.

    Equal channels are one gray channel. Raises UserError for color where the model takes gray
    and for any other difference: which channel counts is the user's decision.
    """
    have = pages.shape[-1]
    if have == channels:
        return pages
    if channels == 1 and (pages == pages[..., :1]).all():
        return pages[..., :1]
    if channels == 1:
        remedy = "choose one with --channels, or convert it to gray (Fiji: Image > Type > 8-bit)"
    elif have == 1:
        remedy = (
            "give the color image the model was trained for, or stack the files of its channels "
            "with --channel-files"
        )
    else:
        remedy = f"choose {channels} with --channels, in their order of the training"
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
