"""Images of a folder at the pixel size that they state, or all at one."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from feedseg.datasets.common.dataset import Section
from feedseg.io import limits, resample
from feedseg.io.calibration import micrometers, read_calibration
from feedseg.io.reading import ReadOptions
from feedseg.runtime.errors import BadImage, UserError
from feedseg.runtime.notes import note


def common(root: Path, images: Iterable[Path], how: ReadOptions) -> float | None:
    """The side of a pixel that all images state, micrometers, to 4 digits; None if there is none.

    Images that state different ones, or of which some state none, are said. A damaged calibration
    is none: the image was read.
    """
    count = Counter(_stated(path, how) for path in images)
    known = sorted((size for size in count if size), key=lambda size: (-count[size], size))
    if len(count) > 1:
        parts = [f"{size:g} µm in {count[size]}" for size in known[:5]]
        parts += [f"{len(known) - 5} other sizes"] if len(known) > 5 else []
        parts += [f"none stated in {count[None]}"] if None in count else []
        note(
            "pixel sizes",
            f"{root}: pixel sizes differ from image to image ({', '.join(parts)}), objects with "
            f"them; in training --config.data.pixel_size={known[0]:g} brings all images to one",
        )
    return known[0] if len(count) == 1 and known else None


def _stated(path: Path, how: ReadOptions) -> float | None:
    try:
        size = micrometers(read_calibration(path, how))
    except BadImage:
        return None
    return size and float(f"{size:.4g}")


def at(section: Section, path: Path, how: ReadOptions, wanted_um: float) -> Section:
    """A section of an image file with pixels of `wanted_um` micrometers.

    Images are interpolated, smoothed before they are made smaller; labels take the nearest pixel.
    Raises UserError where the file states no pixel size, one that cannot be true, or where the
    result exceeds the memory.
    """
    calibration = read_calibration(path, how)
    height = micrometers(calibration)
    if not height:
        raise UserError(
            f"{path}: states no pixel size, which data.pixel_size={wanted_um:g} needs; state it "
            "in the file (Fiji: Image > Properties) or leave out data.pixel_size"
        )
    width = height * calibration.pixel_width / calibration.pixel_height
    scales = height / wanted_um, width / wanted_um
    if not all(resample.LEAST <= scale <= resample.MOST for scale in scales):
        raise UserError(
            f"{path}: pixels of {height:.3g} x {width:.3g} µm, too far from "
            f"data.pixel_size={wanted_um:g} to be true; correct one of both"
        )
    size = resample.scaled(section.label.shape, scales)
    num_bytes = 4 * size[0] * size[1] * section.image.shape[2]
    limits.check_piece(path, num_bytes, "rescaled pixels", "choose a larger data.pixel_size")
    return section._replace(
        image=resample.image(section.image, size), label=resample.labels(section.label, size)
    )
