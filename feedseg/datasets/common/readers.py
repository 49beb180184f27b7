"""Reading of image and label files as sections, with checks of their content."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from feedseg.datasets.common.dataset import CONVERSIONS, VOID, Section, apply_channels
from feedseg.datasets.common.pairing import Pair, pair_folders, require_complete, shorten
from feedseg.io import images
from feedseg.io.reading import AS_STATED, ReadOptions, label_options, listed
from feedseg.runtime.errors import BadImage, UserError


def read_pages(path: Path, channels: str = "as_is", how: ReadOptions = AS_STATED) -> np.ndarray:
    """All pages of an image file, [P, h, w, C] uint8, uint16 or float32.

    channels: `as_is` or `grey`, see `dataset.apply_channels`; how: see `ReadOptions`. Raises
    BadImage.
    """
    try:
        return apply_channels(images.read_array(path, how), channels)
    except BadImage:
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_options(options) -> ReadOptions:
    """How the images of a folder are read; options: the config's `data` part."""
    chosen = "" if options.channels in CONVERSIONS else options.channels
    return ReadOptions(
        axes=options.axes,
        interpret=options.interpret,
        fill_missing=options.fill_missing,
        channels=listed(chosen),
        series=options.series,
        z=options.z,
        channel_files=tuple(n.strip() for n in options.channel_files.split(",") if n.strip()),
    ).checked()


def conversion(options) -> str:
    """What becomes of the channels that are read: `as_is` or `grey`."""
    return options.channels if options.channels in CONVERSIONS else "as_is"


def read_labels(path: Path, how: ReadOptions, count: int) -> np.ndarray:
    """The labels [P, h, w] of an image of `count` pages that is read so.

    Labels of a whole stack are those of the slices that are chosen of the image.
    """
    labels = images.read_label(path, label_options(how))
    if len(labels) == count or how.z in ("", "max"):
        return labels
    return images.read_label(path, label_options(how)._replace(z=how.z))


def read_image(path: Path, channels: str = "as_is") -> np.ndarray:
    """The only page of an image file, [h, w, C]. Raises BadImage if there are several."""
    return _single(read_pages(path, channels), path)


def read_values(path: Path) -> np.ndarray:
    """The only page of a label file, [h, w] of an unsigned type. Raises BadImage if several."""
    return _single(images.read_label(path), path)


def read_mask(path: Path) -> np.ndarray:
    """A binary mask, [h, w] bool; images of more than 1 bit are thresholded at 128."""
    values = read_values(path)
    return values > 0 if values.max(initial=0) <= 1 else values >= 128


def read_ids(path: Path, num_classes: int) -> np.ndarray:
    """A label image of class ids 0 to num_classes-1 and 255 (void), [h, w] uint8."""
    return check_ids(read_values(path), num_classes, path)


def check_ids(values: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    """`values` as uint8. Raises BadImage if one is neither a class id nor 255."""
    wrong = np.setdiff1d(values, [*range(num_classes), VOID])
    if wrong.size:
        raise BadImage(
            f"{path}: label values {shorten(wrong)}; expected class ids 0 to {num_classes - 1} "
            f"(or {VOID} for ignored pixels)"
        )
    return values.astype(np.uint8)


def section(name: str, image: np.ndarray, label: np.ndarray, path: Path) -> Section:
    """A Section. Raises UserError naming `path` (of the label) if the sizes differ."""
    if image.shape[:2] != label.shape:
        raise UserError(
            f"{path}: label is {label.shape[0]}x{label.shape[1]} px (height x width), "
            f"its image {image.shape[0]}x{image.shape[1]}; both must agree"
        )
    return Section(name, image, label)


def sections_of(
    pairs: list[Pair], options, read_truth: Callable[[Path], np.ndarray]
) -> list[Section]:
    """One section per pair of single-page files; `read_truth` gives the label [h, w] uint8."""
    return [
        section(
            pair.name, read_image(pair.image, options.channels), read_truth(pair.label), pair.label
        )
        for pair in pairs
    ]


def sections_in(
    images: Path, labels: Path, options, read_truth: Callable[[Path], np.ndarray]
) -> list[Section]:
    """`sections_of` the equal names of two folders. Raises UserError if a file has no partner."""
    files = pair_folders(images, labels)
    require_complete(files, images.parent)
    return sections_of(files.pairs, options, read_truth)


def read_foreground(path: Path) -> np.ndarray:
    """A label of two classes stored as 0/1 or 0/255, [h, w] uint8 with 1 for the second."""
    return binary(read_values(path), path)


def binary(values: np.ndarray, path: Path) -> np.ndarray:
    """0 and 1 (uint8) from an array of 0/1 or of 0/255. Raises BadImage for other values."""
    distinct = np.unique(values).tolist()
    if not set(distinct) <= {0, 1} and not set(distinct) <= {0, 255}:
        raise BadImage(f"{path}: label values {shorten(distinct)}; expected 0 and 1, or 0 and 255")
    return (values > 0).astype(np.uint8)


def choose(options, key: str, choices: tuple[str, ...]) -> str:
    """`options[key]`. Raises UserError if it is none of `choices`."""
    value = options[key]
    if value not in choices:
        raise UserError(f"data.{key}={value!r}: choose one of {', '.join(choices)}")
    return value


def _single(pages: np.ndarray, path: Path) -> np.ndarray:
    if len(pages) != 1:
        raise BadImage(f"{path}: {len(pages)} pages where one image was expected")
    return pages[0]
