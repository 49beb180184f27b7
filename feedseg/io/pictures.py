"""Pixels of PNG, JPG and BMP files, through Pillow; 16-bit color through imagecodecs."""

import struct
from pathlib import Path

import numpy as np

from feedseg.io import appearance
from feedseg.io.limits import check_piece
from feedseg.io.reading import ReadOptions
from feedseg.runtime.errors import BadImage, UserError, one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_ONE_CHANNEL = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")
_GREY_STEP = {2: 85, 4: 17}  # Pillow spreads 2- and 4-bit gray over 0-255


def read(path: Path, how: ReadOptions, as_label: bool) -> tuple[np.ndarray, bool]:
    """Pixels [1, H, W, C] of a PNG, JPG or BMP file and whether the last one is an opacity.

    how: see `ReadOptions`; as_label: a palette is one for the screen. Raises BadImage naming the
    file for what is damaged, too large, an animation, or in a color mode that is not supported.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()  # checksums; the file has to be opened anew afterwards
        with Image.open(path) as image:
            num_bytes = image.width * image.height * len(image.getbands())
            check_piece(path, num_bytes, "pixels", "split the image or save it as TIFF in tiles")
            indices = as_label or how.interpret == "stored"
            array, alpha = _picture_array(path, image, indices)
            orientation = int(image.getexif().get(appearance.ORIENTATION) or 1)
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise many types on damaged input
        if isinstance(error, OSError) and error.strerror:
            raise BadImage(f"{path}: cannot be read: {error.strerror}") from None
        raise BadImage(
            f"{path}: damaged or unsupported picture ({one_line(error)}); "
            "copy the file again or save it as TIFF"
        ) from None
    pages = array[None, ..., None] if array.ndim == 2 else array[None]
    if 1 < orientation <= 8 and how.interpret != "stored":
        appearance.say_turned(path, orientation)
        pages = appearance.turned(pages, orientation)
    return pages, alpha


def _picture_array(path: Path, image, as_label: bool) -> tuple[np.ndarray, bool]:
    """Pixels [H, W] or [H, W, C] of an open Pillow image and whether the last one is an opacity."""
    depth, kind = _png_depth(path)
    if depth == 16 and kind != 0:  # Pillow would keep 8 of the 16 bits
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes()), kind in (4, 6)
    if getattr(image, "n_frames", 1) > 1:
        raise BadImage(f"{path}: an animation of {image.n_frames} frames; save a TIFF stack")
    if as_label and image.mode == "P":
        return np.asarray(image), False
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
        array = np.asarray(image)
        gray = (array[..., 0] == array[..., 1]).all() and (array[..., 0] == array[..., 2]).all()
        return (array[..., [0, 3]] if gray else array), True
    if image.mode in _ONE_CHANNEL:
        array = np.asarray(image)
        return (array // _GREY_STEP[depth] if as_label and depth in _GREY_STEP else array), False
    if image.mode not in ("RGB", "LA", "RGBA"):
        raise BadImage(f"{path}: color mode {image.mode} is not supported; save as gray or RGB")
    return np.asarray(image), image.mode != "RGB"


def _png_depth(path: Path) -> tuple[int, int]:
    """Bits per sample and color type of a PNG; (0, 0) for other files.

    Color types: 0 gray, 2 RGB, 3 palette, 4 gray + alpha, 6 RGBA.
    """
    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 26:
        return 0, 0
    return struct.unpack_from("BB", head, 24)
