"""ImageJ's regions of interest: .roi files and the zip archives of its ROI Manager.

The coordinates of areas count the edges of pixels, those of lines their centers, as in ImageJ. A
line is as wide as its stroke, at least 1 px. The class of a region is its name, without the number
that the ROI Manager adds (`nucleus-2`), else its group; names that state a place
(`0012-0107-0093`) are none.
"""

import logging
import re
from pathlib import Path
from typing import NoReturn

import numpy as np

from feedseg.io.annotations.shapes import Annotated, Ring, Shape, box, ellipse, ring, stroke
from feedseg.runtime.archives import BROKEN, Archive
from feedseg.runtime.errors import UserError, one_line
from feedseg.runtime.notes import note

MOST_BYTES = 64 * 2**20  # of one region
MOST_REGIONS = 10**6
_PLACE = re.compile(r"\d{3,}(-\d{3,})+(-\d+)?")
_COUNTER = re.compile(r"[-_ .#]+\d+$")


def read(path: Path) -> list[Annotated]:
    """The regions of a file or an archive, in its order, on the image that it is named after.

    Points and angles are left out, which is said. Raises UserError naming the file and the region.
    """
    shapes, passed = [], 0
    for name, data in _contents(path):
        try:
            shape = _shape(path, name, data)
        except UserError:
            raise
        except Exception as error:  # a damaged region raises almost anything
            raise UserError(
                f"{path}: {one_line(name)}: no readable ROI ({one_line(error)}); save it again"
            ) from None
        passed += shape is None
        shapes += [shape] if shape else []
    if passed:
        note("points", f"{path}: {passed} ROIs enclose no area (points, angles), left out")
    return [Annotated(path, shapes)] if shapes else []


def _contents(path: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of each region."""
    if path.suffix.lower() == ".roi":
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES:,} bytes, no ROI file")
        return [(path.name, data)]
    try:
        with Archive(path) as archive:
            names = [name for name in archive.names if name.lower().endswith(".roi")]
            if len(names) > MOST_REGIONS or len(set(names)) < len(names):
                raise ValueError(f"{len(names)} ROIs, too many or two of one name")
            return [(name, archive.read(name, MOST_BYTES)) for name in names]
    except BROKEN as error:
        raise UserError(
            f"{path}: no readable zip of ROIs ({one_line(error)}); save it again in the ROI Manager"
        ) from None


def _shape(path: Path, entry: str, data: bytes) -> Shape | None:
    """One region; None for points and angles."""
    from roifile import ImagejRoi

    logger = logging.getLogger("roifile")  # which reads on where a name or a type is damaged
    logger.addFilter(_refuse)
    try:
        roi = ImagejRoi.frombytes(data)
    finally:
        logger.removeFilter(_refuse)
    name = (roi.name or Path(entry).stem).strip()
    pieces = _pieces(roi)
    return pieces and Shape(
        f"{path}: ROI {one_line(name)}", class_names(name), pieces, group=roi.group, page=_page(roi)
    )


def _refuse(record: logging.LogRecord) -> NoReturn:
    raise ValueError(record.getMessage())


def class_names(name: str) -> tuple[str, ...]:
    """The classes that a region's name may stand for, the most exact first."""
    if not name or _PLACE.fullmatch(name):
        return ()
    return tuple(dict.fromkeys((name, _COUNTER.sub("", name) or name)))


def _page(roi) -> int:
    """Page of a stack, from 1 on; 0 if it is on all."""
    if roi.z_position > 1 and roi.t_position > 1:
        raise ValueError("on a slice and a time; save the image as a stack of one of them")
    return max(0, roi.position or max(roi.z_position, roi.t_position))


def _pieces(roi) -> tuple[tuple[Ring, ...], ...] | None:
    from roifile import ROI_SUBTYPE, ROI_TYPE

    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE, ROI_SUBTYPE.ARROW):
        return None
    match roi.roitype:
        case ROI_TYPE.RECT if roi.composite:
            rings = tuple(ring(each) for each in roi.coordinates(multi=True) if len(each) > 2)
            if not rings:
                raise ValueError("encloses no area")
            return (rings,)
        case ROI_TYPE.RECT | ROI_TYPE.OVAL:
            return ((_rounded(roi),),)
        case ROI_TYPE.POLYGON | ROI_TYPE.FREEHAND | ROI_TYPE.TRACED:
            return ((ring(roi.coordinates()),),)
        case ROI_TYPE.LINE | ROI_TYPE.FREELINE | ROI_TYPE.POLYLINE:
            width = max(1.0, roi.float_stroke_width or roi.stroke_width)
            return stroke(ring(np.asarray(roi.coordinates()) + 0.5, 2), width)
        case ROI_TYPE.POINT | ROI_TYPE.ANGLE | ROI_TYPE.NOROI:
            return None
    raise ValueError(f"its type {int(roi.roitype)} is not known")


def _rounded(roi) -> Ring:
    """Rectangle or oval in the box of a region."""
    from roifile import ROI_TYPE

    left, top, right, bottom = roi.left, roi.top, roi.right, roi.bottom
    if roi.subpixelrect:
        left, top, right, bottom = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
    if roi.roitype == ROI_TYPE.OVAL:
        across, down = (right - left) / 2, (bottom - top) / 2
        return ellipse(left + across, top + down, across, down)
    if roi.rounded_rect_arc_size:
        raise ValueError("a rounded rectangle; make it a polygon (Edit > Selection > Interpolate)")
    return box(left, top, right, bottom)
