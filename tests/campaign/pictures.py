"""Small valid images of every kind that feedseg reads, to be damaged."""

from pathlib import Path
from random import Random

import numpy as np
import tifffile
from PIL import Image

try:
    import zarr
except ImportError:
    zarr = None

_AXES = (("c", "channel"), ("y", "space"), ("x", "space"))
_ZLIB = dict(compression="zlib")
TIFFS = {
    "strips": {},
    "tiles": dict(tile=(16, 16), **_ZLIB),
    "lzw": dict(compression="lzw", predictor=True),
    "big": dict(bigtiff=True),
    "rows": dict(rowsperstrip=3, **_ZLIB),
    "jpeg": dict(compression="jpeg"),
    "zstd": dict(compression="zstd"),
    "deep": dict(dtype="uint16", byteorder=">"),
    "float": dict(dtype="float32", compression="zlib", predictor=True),
    "rgb": dict(shape=(40, 33, 3), photometric="rgb"),
    "planar": dict(shape=(3, 40, 33), photometric="rgb", planarconfig="separate"),
    "pages": dict(shape=(5, 40, 33), **_ZLIB),
    "inverted": dict(photometric="miniswhite"),
    "imagej": dict(shape=(2, 3, 40, 33), imagej=True, metadata={"axes": "ZCYX"}),
    "ome": dict(shape=(2, 3, 40, 33), ome=True, metadata={"axes": "ZCYX"}),
    "ome-tiles": dict(shape=(3, 40, 33), ome=True, tile=(16, 16), metadata={"axes": "CYX"}),
}
MODES = ("L", "RGB", "RGBA", "P", "1", "I;16")
KINDS = (*TIFFS, *(f"png {mode}" for mode in MODES), "jpg", "bmp", "npy", *["zarr"] * 8)


def make(rng: Random, folder: Path, kind: str = "") -> Path:
    """An image of a kind, else of a random one, in `folder`, a file or a folder of OME-Zarr."""
    kind = kind or rng.choice(KINDS if zarr else [each for each in KINDS if each != "zarr"])
    numbers = np.random.default_rng(rng.randrange(2**32))
    if kind in TIFFS:
        options = dict(TIFFS[kind])
        shape, dtype = options.pop("shape", (40, 33)), options.pop("dtype", "uint8")
        path = folder / f"{kind}{'.ome' if 'ome' in options else ''}.tif"
        tifffile.imwrite(path, _pixels(numbers, shape, dtype), **options)
        return path
    if kind == "zarr":
        return _ome_zarr(rng, numbers, folder)
    path = folder / f"image.{kind.split()[0]}"
    gray = _pixels(numbers, (40, 33), "uint8")
    if kind == "npy":
        np.save(path, gray)
    elif kind == "png I;16":
        Image.fromarray(gray.astype(np.uint16) * 200).save(path)
    else:
        Image.fromarray(gray).convert(kind.split()[1] if " " in kind else "L").save(path)
    return path


def labels(rng: Random, path: Path, side: int = 16) -> None:
    """A label image of three classes; its name says the format."""
    ids = np.random.default_rng(rng.randrange(2**32)).integers(0, 3, (side, side), dtype=np.uint8)
    ids[0, :3] = 0, 1, 2
    if path.suffix == ".tif":
        tifffile.imwrite(path, ids, compression=rng.choice((None, "zlib", "lzw")))
    elif path.suffix == ".npy":
        np.save(path, ids)
    else:
        image = Image.fromarray(ids)
        if rng.random() < 0.3:
            image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.save(path)


def _pixels(numbers, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "float32":
        return numbers.random(shape, dtype=np.float32)
    return numbers.integers(0, 200, shape).astype(dtype)


def _ome_zarr(rng: Random, numbers, folder: Path) -> Path:
    """Version 2 or 3, with blosc, zstd, gzip or no compression; [C, Y, X]."""
    version, path = rng.choice((2, 3)), folder / "image.ome.zarr"
    codecs = zarr.codecs
    forms = (codecs.BloscCodec(cname=rng.choice(("lz4", "zstd"))), codecs.ZstdCodec(), None)
    compressor = rng.choice((*forms, codecs.GzipCodec()))
    if version == 2:
        import numcodecs

        compressor = rng.choice((numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), None))
    group = zarr.open_group(path, mode="w", zarr_format=version)
    dtype = rng.choice(("uint8", "uint16", "float32"))
    pixels = _pixels(numbers, (2, 40, 33), dtype)
    shape = dict(shape=pixels.shape, dtype=dtype, chunks=(1, 16, 16), compressors=compressor)
    sharded = dict(shards=(1, 32, 32)) if version == 3 and rng.random() < 0.3 else {}
    group.create_array("0", **shape, **sharded)[...] = pixels
    axes = [{"name": name, "type": kind} for name, kind in _AXES]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscales = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    if version == 2:
        group.attrs["multiscales"] = multiscales
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    return path
