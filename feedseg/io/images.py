"""Images and label images as arrays, whatever their file format. Bad files raise `BadImage`.

TIFF goes through `feedseg.io.tiff`, PNG, JPG and BMP through Pillow, .npy through NumPy without
pickles, folders of OME-Zarr through `feedseg.io.zarr_rows`. Writing is in
`feedseg.io.writers`.
"""

import functools
from pathlib import Path

import numpy as np

from feedseg.io import (
    bioio_rows,
    channel_files,
    channel_names,
    ngff,
    pictures,
    reading,
    selection,
    stack_axes,
    tiff,
)
from feedseg.io.calibration import Calibration, read_calibration
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.io.tiff import MAX_BYTES, check_size, read_tiff
from feedseg.io.zarr_rows import ZarrRows
from feedseg.runtime.errors import BadImage, UserError, one_line

__all__ = [
    "SUFFIXES",
    "Calibration",
    "list_images",
    "read_array",
    "read_calibration",
    "read_label",
]

SUFFIXES = (*tiff.SUFFIXES, *pictures.SUFFIXES, ".npy", *bioio_rows.SUFFIXES)
_EXPECTED = ", ".join((*SUFFIXES, ".zarr"))


def read_array(path: Path, how: ReadOptions = AS_STATED) -> np.ndarray:
    """Pixels of an image file or of an OME-Zarr folder, [P, H, W, C] uint8, uint16 or float32.

    P counts the pages of a stack, C the channels. Other integer types are converted where their
    values fit 16 bits, 1-bit images become 0 and 1, double precision becomes single. A palette
    becomes gray or RGB. An opacity channel is dropped if every pixel is opaque. Images are turned
    and inverted as their file says (`feedseg.io.appearance`); how: see `ReadOptions`.
    Raises BadImage naming the file if it is damaged, not an image, holds NaN or infinite pixels,
    or if a conversion would lose something.
    """
    path = Path(path)
    if how.channel_files:
        array = _stacked(path, how)
    else:
        array, alpha = _read(path, how, as_label=False)
        array = drop_alpha(path, array) if alpha else array
    return plain_type(path, _selected(path, array, how))


def read_label(path: Path, how: ReadOptions = AS_STATED) -> np.ndarray:
    """Label image, [P, H, W] of an unsigned integer type; palette files give their indices.

    Whole-numbered floating point values and channels that repeat one another are accepted.
    Raises BadImage for colors, fractions, negative values, or what `read_array` refuses.
    """
    path = Path(path)
    array, alpha = _read(path, how, as_label=True)
    array = _selected(path, drop_alpha(path, array) if alpha else array, how)
    array = plain_type(path, array, label=True)
    if array.shape[3] > 1 and not (array == array[..., :1]).all():
        raise BadImage(
            f"{path}: the label has {array.shape[3]} differing channels (colors); "
            "save class ids 0, 1, 2, ... as one gray channel"
        )
    return array[..., 0]


def list_images(path: Path) -> list[Path]:
    """The images that a path stands for: the file itself, or those of a folder by name.

    An OME-Zarr folder is one image. Suffixes count in any case; hidden files and sub-folders not
    called .zarr are passed over. Raises UserError if there is none.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: not a known image type; use {_EXPECTED}")
    if is_image(path):
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    names = (each for each in path.iterdir() if not each.name.startswith("."))
    known = (each for each in names if each.suffix.lower() in (*SUFFIXES, ".zarr"))
    found = sorted(each for each in known if is_image(each))
    if not found:
        raise UserError(f"{path}: no image in this folder; expected {_EXPECTED}")
    return found


def stem(path: Path) -> str:
    """Name of an image without its suffix, also without the `.ome` of OME-TIFF and OME-Zarr."""
    name, suffix = Path(path).stem, Path(path).suffix.lower()
    ome = (
        suffix in (*tiff.SUFFIXES, ".zarr")
        and name.lower().endswith(".ome")
        and len(name) > len(".ome")
    )
    return name[: -len(".ome")] if ome else name


def is_image(path: Path) -> bool:
    """Whether a path is one image by its name, or by its metadata where it is a folder."""
    path = Path(path)
    return (path.is_file() and path.suffix.lower() in SUFFIXES) or ngff.is_zarr(path)


def is_color(path: Path, how: ReadOptions = AS_STATED) -> bool:
    """Whether three channels of an image are red, green and blue, not three stains."""
    path = Path(path)
    if how.channels or how.channel_files:
        return False
    if path.suffix.lower() in tiff.SUFFIXES and path.is_file():
        return tiff.strictly(
            path, lambda file: tiff.is_rgb(tiff.main_series(path, file, how).keyframe)
        )
    suffix = path.suffix.lower()
    return suffix in pictures.SUFFIXES or (suffix == ".npy" and not how.axes)


def refuse_axes(path: Path, how: ReadOptions) -> None:
    """Raises BadImage where axes are named for a file that states its own."""
    if how.axes:
        raise BadImage(f"{path}: states its axes itself; leave out --axes {how.axes}")


def _read(path: Path, how: ReadOptions, as_label: bool) -> tuple[np.ndarray, bool]:
    """Pixels [P, H, W, C] and whether the last channel is an opacity."""
    suffix = path.suffix.lower()
    if ngff.is_zarr(path) or suffix in bioio_rows.SUFFIXES:
        return rows_of(path, how).whole(), False
    if not path.is_file():
        raise BadImage(f"{path}: no such file")
    if suffix in tiff.SUFFIXES:
        array, alpha = read_tiff(path, how, as_label)
    elif suffix in pictures.SUFFIXES:
        refuse_axes(path, how)
        _refuse_series(path, how)
        array, alpha = pictures.read(path, how, as_label)
    elif suffix == ".npy":
        array, alpha = _read_npy(path, how), False
    else:
        raise BadImage(f"{path}: not a known image type; use {_EXPECTED}")
    return array, alpha


def rows_of(path: Path, how: ReadOptions) -> ZarrRows | bioio_rows.BioRows:
    """The rows of an OME-Zarr folder, or of a file of a microscope."""
    refuse_axes(path, how)
    if not ngff.is_zarr(path):
        return bioio_rows.BioRows(path, how.series)
    rows = ZarrRows(path, how.series)
    rows.require_chunks(how.fill_missing)
    return rows


def _stacked(path: Path, how: ReadOptions) -> np.ndarray:
    """The channels of several files, [P, H, W, C]."""
    alone = how._replace(channels=(), channel_files=(), z="")
    files = channel_files.members(path, how.channel_files)
    parts = [read_array(each, alone) for each in files]
    channel_files.require_alike(
        (f, part.shape[:3], part.dtype) for f, part in zip(files, parts, strict=True)
    )
    return np.concatenate(parts, -1)


def _selected(path: Path, array: np.ndarray, how: ReadOptions) -> np.ndarray:
    """The slices and channels of an image [P, H, W, C] that `how` chooses."""
    if how.z:
        axes = stack_axes.stated(path, how, len(array))
        groups, _ = selection.pages(path, axes, how.z)
        array = np.stack([array[group].max(0) for group in groups])
    if how.channels:
        names = functools.partial(channel_names.of, path, how)
        array = array[..., selection.channels(path, array.shape[-1], how.channels, names)]
    return array


def _refuse_series(path: Path, how: ReadOptions) -> None:
    """Raises BadImage where a series is chosen that a file of one image does not have."""
    if how.series:
        selection.place(path, [""], how.series)


def map_npy(path: Path, limit: float = MAX_BYTES, how: ReadOptions = AS_STATED) -> np.ndarray:
    """Read-only map [P, H, W, C] of a .npy file, its values as stored.

    The file holds [H, W], [H, W, 3 or 4], [P, H, W] or [P, H, W, C], or the axes that `how` names;
    limit: its bytes allowed.
    Raises BadImage naming the file if it is damaged, too large or no such array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        check_size(path, array.nbytes, path.stat().st_size, limit)
    except UserError:
        raise
    except Exception as error:  # a damaged header raises almost anything, SyntaxError included
        if isinstance(error, OSError) and error.strerror:
            raise BadImage(f"{path}: cannot be read: {error.strerror}") from None
        raise BadImage(
            f"{path}: damaged, or not a plain numeric .npy array ({one_line(error)}); "
            "save it with numpy.save(file, array, allow_pickle=False)"
        ) from None
    if 0 in array.shape:
        raise BadImage(f"{path}: the image is empty, its shape is {array.shape}")
    _refuse_series(path, how)
    axes = reading.named(path, how.axes, array.shape) if how.axes else ""
    return reading.to_pages(array, axes or reading.guessed(path, array.shape))


def _read_npy(path: Path, how: ReadOptions) -> np.ndarray:
    try:
        return np.array(map_npy(path, how=how))
    except MemoryError:
        raise BadImage(f"{path}: larger than the memory; split or crop the image") from None


def drop_alpha(path: Path, array: np.ndarray) -> np.ndarray:
    """The color channels of an image whose last channel, its opacity, is full everywhere.

    Raises BadImage if it is not.
    """
    opacity = array[..., -1]
    top = 1 if array.dtype.kind in "bf" else np.iinfo(array.dtype).max
    if not (opacity == top).all():
        raise BadImage(
            f"{path}: partly transparent; flatten the image (remove its alpha channel) "
            "and save it again"
        )
    return array[..., :-1]


def plain_type(path: Path, array: np.ndarray, label: bool = False) -> np.ndarray:
    """The same values as uint8, uint16 or float32; for a label as uint8, uint16 or uint32."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8)
    if kind == "f":
        array = _finite(path, array)
        if not label:
            return array
        if not (array == np.rint(array)).all():
            raise BadImage(
                f"{path}: the label holds fractions (interpolated or probabilities?); "
                "save class ids 0, 1, 2, ... without smoothing"
            )
        array = array.astype(np.int64) if np.abs(array).max() < 2**32 else array
    elif kind not in "iu":
        raise BadImage(f"{path}: pixel type {array.dtype} is not supported; save as 8 or 16 bit")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(native)
    return _fit(path, native, label)


def _finite(path: Path, array: np.ndarray) -> np.ndarray:
    """Single precision, checked for NaN and infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise BadImage(
            f"{path}: {bad} pixels are NaN or infinite; replace them (Fiji: Process > Math > NaN "
            "Background) and save the image again"
        )
    return array


def _fit(path: Path, array: np.ndarray, label: bool) -> np.ndarray:
    """Integers as the unsigned type that holds them; images get 16 bit, int8 gives 8 bit."""
    low, high = array.min(), array.max()
    if label:
        kinds = (np.uint8, np.uint16, np.uint32)
    else:
        kinds = (np.uint8,) if array.dtype.itemsize == 1 else (np.uint16,)
    for kind in kinds:
        if low >= 0 and high <= np.iinfo(kind).max:
            return array.astype(kind)
    wanted = "class ids from 0 on" if label else "an image as 16 bit (0-65535) or 32-bit float"
    raise BadImage(f"{path}: {array.dtype} values from {low} to {high}; save {wanted}")
