"""Our files opened by ImageJ itself, and files that ImageJ saved read here.

Needs Java and ImageJ 1, in Debian the packages default-jre-headless and libij-java.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg.io import images
from feedseg.io.calibration import Calibration
from feedseg.io.writers import imagej
from feedseg.io.writers import labels as labels_writer

JAR = Path(os.environ.get("IMAGEJ_JAR", "/usr/share/java/ij.jar"))
pytestmark = pytest.mark.skipif(
    not (JAR.exists() and shutil.which("java")),
    reason="needs Java and ImageJ (Debian: default-jre-headless, libij-java; else IMAGEJ_JAR=)",
)
JAVA = ("java", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8")
# ImageJ makes its menus when it opens its first file, which fails without a screen; only once.
MENUS = ("-eval", 'open("nothing.tif");')
RNG = np.random.default_rng(0)
NAMES, COLORS = ("cell body", "membrane", "µ-tubule"), ((0, 0, 0), (255, 0, 0), (0, 90, 255))
MICRONS = Calibration(0.25, 0.2, "µm", 1.5)
HEIGHT, WIDTH = 20, 28
SHOW = """
setBatchMode(true);
files = split(getArgument(), "|");
for (f = 0; f < files.length; f++) {
    open(files[f]);
    Stack.getDimensions(width, height, channels, slices, frames);
    print("FILE " + files[f]);
    print("size " + width + " " + height + " " + channels + " " + slices + " " + frames);
    print("bits " + bitDepth());
    print("hyperstack " + Stack.isHyperstack);
    getVoxelSize(w, h, d, unit);
    print("voxel " + w + " " + h + " " + d + " " + unit);
    print("interval " + Stack.getFrameInterval());
    getMinAndMax(low, high);
    print("range " + low + " " + high);
    getLut(reds, greens, blues);
    print("lut " + reds[0] + " " + greens[0] + " " + blues[0] + " " + reds[1] + " " + greens[1]
        + " " + blues[1] + " " + reds[2] + " " + greens[2] + " " + blues[2] + " " + reds[255]
        + " " + greens[255] + " " + blues[255]);
    print("label " + getInfo("slice.label"));
    print("info " + replace(getMetadata("Info"), "\\n", "; "));
    for (s = 1; s <= nSlices; s++) {
        setSlice(s);
        line = "pixels";
        for (y = 0; y < height; y++)
            for (x = 0; x < width; x++) line = line + " " + d2s(getPixel(x, y), 6);
        print(line);
    }
    close();
}
"""


def macro(folder: Path, code: str, argument: str) -> str:
    """What ImageJ prints as it runs a macro."""
    (folder / "macro.ijm").write_text(code)
    command = [*JAVA, "-cp", str(JAR), "ij.ImageJ", *MENUS, "-batch", folder / "macro.ijm"]
    done = subprocess.run([*command, argument], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def show(*paths: Path) -> list[dict]:
    """What ImageJ says about files; `pixels`: [pages, H, W]."""
    said = macro(paths[0].parent, SHOW, "|".join(map(str, paths)))
    found = []
    for part in said.split("FILE ")[1:]:
        lines = [line.partition(" ")[::2] for line in part.splitlines()[1:]]
        pages = [[float(v) for v in text.split()] for key, text in lines if key == "pixels"]
        found.append(dict(lines) | {"pixels": np.reshape(pages, (-1, HEIGHT, WIDTH))})
    assert len(found) == len(paths), said
    return found


@pytest.mark.parametrize(
    ("axes", "size", "calibration"),
    [
        ((), "28 20 1 1 1", MICRONS),
        ((("z", 3),), "28 20 1 3 1", MICRONS),
        ((("t", 3),), "28 20 1 1 3", Calibration(3.5, 3.5, "nm", None, 2.5)),
        ((("t", 2), ("z", 3)), "28 20 1 3 2", MICRONS._replace(frame_interval=0.5)),
        ((("z", 2), ("t", 3)), "28 20 1 6 1", None),  # not ImageJ's order: slices
    ],
)
def test_labels_in_imagej(tmp_path, axes, size, calibration):
    path = tmp_path / "a_labels.tif"
    count = int(np.prod([n for _, n in axes]))
    labels = RNG.integers(0, 3, (count, HEIGHT, WIDTH)).astype(np.uint8)
    labels[0, 0, 0] = 255
    labels_writer.write_labels(path, labels, NAMES, COLORS, calibration, axes=axes)
    (seen,) = show(path)
    assert (seen["size"], seen["bits"]) == (size, "8")
    np.testing.assert_array_equal(seen["pixels"], labels)
    assert seen["lut"].split() == [str(v) for rgb in (*COLORS, imagej.VOID_COLOR) for v in rgb]
    assert seen["range"] == "0 255"
    assert "class 1: membrane (RGB 255 0 0); class 2: µ-tubule (RGB 0 90 255)" in seen["info"]
    if count == 1:
        assert seen["label"] == "0 cell body, 1 membrane, 2 µ-tubule"
    same_scale(seen, calibration)
    assert images.read_calibration(path) == calibration


def same_scale(seen: dict, calibration: Calibration | None) -> None:
    *voxel, unit = seen["voxel"].split()
    if calibration is None:
        assert unit == "pixels"
        return
    width, height, depth = map(float, voxel)
    assert unit == calibration.unit
    np.testing.assert_allclose((width, height), (calibration.pixel_width, calibration.pixel_height))
    assert depth == (calibration.spacing or 1)
    assert float(seen["interval"]) == (calibration.frame_interval or 0)


def test_probabilities_and_instances_in_imagej(tmp_path):
    # Compressible: pages as far apart as uncompressed ones ImageJ would take for such.
    soft = RNG.integers(0, 65, (6, HEIGHT, WIDTH, 3)).astype(np.float32) / 64
    ids = RNG.integers(0, 700, (6, HEIGHT, WIDTH)).astype(np.uint16)
    axes, calibration = (("t", 3), ("z", 2)), MICRONS._replace(frame_interval=4.0)
    files = [tmp_path / name for name in ("float.tif", "bytes.tif", "ids.tif", "one.tif")]
    imagej.write_probabilities(files[0], soft, NAMES, calibration, axes=axes)
    gray = np.rint(255 * soft).astype(np.uint8)
    imagej.write_probabilities(files[1], gray, NAMES, calibration, dtype="uint8", axes=axes)
    imagej.write_instances(files[2], ids, calibration, ids.shape, 700, axes)
    imagej.write_probabilities(files[3], soft[:1], NAMES, calibration)
    seen = show(*files)
    assert [each["size"] for each in seen] == [
        "28 20 3 2 3",
        "28 20 3 2 3",
        "28 20 1 2 3",
        "28 20 3 1 1",
    ]
    assert [each["bits"] for each in seen] == ["32", "8", "16", "32"]
    assert [each["range"] for each in seen] == ["0 1", "0 255", "0 700", "0 1"]
    for each, expected in zip(seen, (soft, gray, ids[..., None], soft[:1]), strict=True):
        pages = np.moveaxis(expected, -1, 1).reshape(-1, HEIGHT, WIDTH)
        np.testing.assert_allclose(each["pixels"], pages, atol=1e-6)
        same_scale(each, calibration)
    for each in (seen[0], seen[1], seen[3]):
        assert "channel 1: cell body; channel 2: membrane; channel 3: µ-tubule" in each["info"]
    np.testing.assert_array_equal(images.read_label(files[2]), ids)
    assert seen[2]["lut"].startswith("0 0 0 255 55 55")  # mixed colors


def test_imagej_does_not_open_bigtiff(tmp_path, monkeypatch):
    """Why files above 4 GiB are OME-TIFF, for Bio-Formats."""
    monkeypatch.setattr(imagej, "CLASSIC_LIMIT", 0)
    path = tmp_path / "a.tif"
    labels_writer.write_labels(path, np.zeros((1, 20, 28), np.uint8), NAMES, COLORS, MICRONS)
    assert tifffile.TiffFile(path).is_bigtiff
    assert "Unsupported format" in macro(tmp_path, SHOW, str(path))


# Files that ImageJ saved --------------------------------------------------------------------------

MAKE = """
setBatchMode(true);
kinds = newArray("8-bit", "16-bit", "32-bit", "RGB");
for (k = 0; k < kinds.length; k++) {
    kind = kinds[k];
    if (kind == "RGB") newImage("a", kind, 28, 20, 3);
    else newImage("a", kind + " composite-mode", 28, 20, 2, 3, 4);
    for (s = 1; s <= nSlices; s++) {
        setSlice(s);
        for (y = 0; y < 20; y++)
            for (x = 0; x < 28; x++) {
                value = x + 3 * y + 5 * s;
                if (kind == "16-bit") value = 300 * value;
                if (kind == "32-bit") value = value / 64;
                if (kind == "RGB") value = (255 << 24) | ((x + s) << 16) | (y << 8) | 7;
                setPixel(x, y, value);
            }
    }
    run_properties();
    saveAs("Tiff", getArgument() + "/" + kind + ".tif");
    close();
}
function run_properties() {
    setVoxelSize(0.2, 0.25, 1.5, "micron");
    Stack.setFrameInterval(30);
}
"""


def test_what_imagej_saved_is_read(tmp_path):
    said = macro(tmp_path, MAKE, str(tmp_path))
    x, y = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    ramp = np.stack([x + 3 * y + 5 * s for s in range(1, 25)])  # channels fastest
    ramp = ramp.reshape(12, 2, HEIGHT, WIDTH).transpose(0, 2, 3, 1)
    for kind, scale, dtype in (("8", 1, "uint8"), ("16", 300, "uint16"), ("32", 1 / 64, "float32")):
        path = tmp_path / f"{kind}-bit.tif"
        assert path.exists(), said
        pages = images.read_array(path)
        assert pages.dtype == dtype
        np.testing.assert_array_equal(pages, (ramp * scale).astype(dtype))
        assert images.read_calibration(path) == Calibration(0.25, 0.2, "micron", 1.5, 30.0)
    color = images.read_array(tmp_path / "RGB.tif")
    expected = [np.stack(np.broadcast_arrays(x + s, y, 7), -1) for s in (1, 2, 3)]
    np.testing.assert_array_equal(color, expected)


def test_labels_that_imagej_saves_again_stay_the_same(tmp_path):
    path, again = tmp_path / "a.tif", tmp_path / "again.tif"
    labels = RNG.integers(0, 3, (6, HEIGHT, WIDTH)).astype(np.uint8)
    calibration = MICRONS._replace(frame_interval=0.5)
    labels_writer.write_labels(path, labels, NAMES, COLORS, calibration, axes=(("t", 2), ("z", 3)))
    code = 'setBatchMode(true); files = split(getArgument(), "|"); open(files[0]); '
    macro(tmp_path, code + 'saveAs("Tiff", files[1]);', f"{path}|{again}")
    np.testing.assert_array_equal(images.read_label(again), labels)
    assert images.read_calibration(again) == calibration
    with tifffile.TiffFile(again) as tif:
        assert tif.series[0].axes == "TZYX"
        assert "class 1: membrane" in tif.imagej_metadata["Info"]
        np.testing.assert_array_equal(tif.pages[0].colormap.T[:3] >> 8, COLORS)
