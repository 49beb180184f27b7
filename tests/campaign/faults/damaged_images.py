"""Damaged TIFF, OME-TIFF, PNG, JPG, BMP, .npy and OME-Zarr: refused, or read alike every time."""

from tests.campaign import fuzz, pictures, reading


def attempt(rng, folder):
    path = pictures.make(rng, folder)
    did = (fuzz.damage_folder if path.is_dir() else fuzz.damage_file)(rng, path)
    return reading.agreed("array", path, did)
