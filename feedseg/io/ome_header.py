"""Whether what OME-XML says of an OME-TIFF and what the TIFF holds can both be true."""

from pathlib import Path
from xml.etree import ElementTree

import tifffile

from feedseg.runtime.errors import BadImage

_AXES = "CZT"
_KINDS = {"uint8", "uint16", "uint32", "int8", "int16", "int32"}  # named as NumPy does


def check(path: Path, tif: tifffile.TiffFile) -> None:
    """Raises BadImage where they contradict each other.

    Numbers of planes are compared with those of the file, which also bounds what tifffile makes of
    them; of the planes, the places that `TiffData` names with the sizes; channels that are
    described with their number; the type with that of the pixels, in a file of one image.
    """
    if not tif.is_ome:
        return
    try:
        root = ElementTree.fromstring(tif.pages.first.description)
    except ElementTree.ParseError as error:
        raise BadImage(f"{path}: its OME-XML is damaged ({error}); save it anew") from None
    images = [each for each in root.iter() if _name(each) == "Pixels"]
    for pixels in images:
        if problem := _planes(pixels, tif) or _type(pixels, tif, len(images)):
            raise BadImage(
                f"{path}: {problem}; the file was cut or changed, or is one of several that belong "
                "together: save it anew as one file"
            )


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _whole(element: ElementTree.Element, key: str, default: int) -> int:
    text = element.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else default


def _planes(pixels: ElementTree.Element, tif: tifffile.TiffFile) -> str:
    sizes = {axis: _whole(pixels, f"Size{axis}", 1) for axis in _AXES}
    planes = sizes["C"] * sizes["Z"] * sizes["T"]
    page = tif.pages.first
    held = len(tif.pages) * page.samplesperpixel * page.imagedepth
    if planes > held:
        return f"its OME-XML announces {planes:,} planes, the file has {held:,}"
    for each in pixels:
        for axis in _AXES if _name(each) == "TiffData" else "":
            if (first := _whole(each, f"First{axis}", 0)) >= max(sizes[axis], 1):
                return f"its OME-XML places a plane at {axis} {first} of {sizes[axis]}"
    channels = sum(_name(each) == "Channel" for each in pixels)
    if channels > max(sizes["C"], 1):
        return f"its OME-XML describes {channels} channels where SizeC is {sizes['C']}"
    return ""


def _type(pixels: ElementTree.Element, tif: tifffile.TiffFile, images: int) -> str:
    said, found = pixels.get("Type", ""), str(tif.pages.first.dtype)
    if images == 1 and said in _KINDS and found != said:
        return f"its OME-XML announces pixels of type {said}, the TIFF's are {found}"
    return ""
