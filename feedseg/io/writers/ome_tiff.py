"""Writing label images as OME-TIFF, for Bio-Formats, OMERO, QuPath and napari."""

from pathlib import Path

from feedseg.io.stack_axes import check_axes
from feedseg.io.writers import imagej, ome_xml
from feedseg.io.writers.label_image import LabelImage

FORMAT, SUFFIXES = "ome-tiff", (".ome.tif", ".ome.tiff")


def write(path: Path, image: LabelImage) -> None:
    """8-bit OME-TIFF of class ids with the class colors as its color table.

    The OME-XML holds pixel sizes and, as map annotations, names and colors of the classes
    (`ome_xml.NAMES`, `ome_xml.COLORS`): class id -> name. Lossless (zlib); BigTIFF where it has to
    be.
    Raises SaveFailed if the file cannot be written, ValueError for labels of another form.
    """
    count, height, width = image.size()
    axes = check_axes(image.axes, count)
    form = ome_xml.form(
        path,
        "".join(name.upper() for name, _ in axes) + "YX",
        image.calibration,
        count * height * width > imagej.CLASSIC_LIMIT,
        **ome_xml.classes(image.class_names, image.class_colors),
    )
    imagej.write_indexed(path, image, (*(size for _, size in axes), height, width), form)
