"""Damaged label files of a folder of images and labels: refused, or read alike every time."""

from tests.campaign import fuzz, pictures, reading


def attempt(rng, folder):
    suffix = rng.choice((".tif", ".png", ".npy", ".bmp"))
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
        for name in "abc":
            pictures.labels(rng, folder / kind / f"{name}{suffix}")
    path = folder / "labels" / f"a{suffix}"
    did = fuzz.damage_file(rng, path)
    if rng.random() < 0.5:
        return reading.agreed("label", path, did)
    return reading.agreed("data_set", folder, f"data set: {did}")
