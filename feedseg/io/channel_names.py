"""What a file calls its channels."""

import re
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from feedseg.io import bioio_rows, ngff, tiff
from feedseg.io.reading import ReadOptions


def of(path: Path, how: ReadOptions) -> list[str]:
    """Names of the channels of an image, in their order; empty where it names none.

    OME-TIFF, OME-Zarr (`omero`), ImageJ (labels of the planes), LSM and the files of microscopes
    name them; of channel files they are the endings, without the characters before the name.
    Raises BadImage for a damaged file.
    """
    if how.channel_files:
        return [re.sub(r"^[\W_]+", "", ending) for ending in how.channel_files]
    if ngff.is_zarr(path):
        return ngff.channel_names(path, how.series)
    suffix = path.suffix.lower()
    if suffix in bioio_rows.SUFFIXES:
        return bioio_rows.BioRows(path, how.series).channel_names
    if suffix in tiff.SUFFIXES:
        return tiff.strictly(path, lambda file: _of_tiff(path, file, how))
    return []


def _of_tiff(path: Path, file: tifffile.TiffFile, how: ReadOptions) -> list[str]:
    series = tiff.main_series(path, file, how)
    if file.is_ome:
        return _of_ome(file.ome_metadata or "", tiff.series_number(file, series))
    if file.is_lsm:
        colors = (file.lsm_metadata or {}).get("ChannelColors") or {}
        return [str(name) for name in colors.get("ColorNames", ())]
    labels = (file.imagej_metadata or {}).get("Labels") or ()
    count = dict(zip(series.axes, series.shape, strict=True)).get("C", 1)
    return list(map(str, labels[:count])) if len(labels) >= count > 1 else []


def _of_ome(xml: str, number: int) -> list[str]:
    """Of the image of this number in OME-XML."""
    elements = (each for each in ElementTree.fromstring(xml).iter())
    images = [each for each in elements if each.tag.endswith("}Pixels")]
    if number >= len(images):
        return []
    return [each.get("Name", "") for each in images[number] if each.tag.endswith("}Channel")]
