"""Data sets with the preparation they need, and the splits of the papers."""

from ml_collections import ConfigDict

# Data sets whose membranes separate cells: Rand and information scores of the cells are computed.
MEMBRANE = ("isbi2012", "irpe", "synthetic", "sstem", "mouse_liver")

AEP_SPLITS = {  # A9: thirds of the crops; five disjoint folds of 10 images for the mouse liver
    "mouse_liver": dict(scheme="rotate", folds=5, counts=(35, 5, 10)),
    "sstem": dict(scheme="rotate", folds=5, counts=(12, 3, 5)),
}

EARLIER_ROUNDS = 0.5  # weight of their losses beside the last round's, Feedback U-Net Eq. 2


def use_dataset(config: ConfigDict, name: str) -> None:
    """Select a data set with the preparation that it needs."""
    config.data.name = name
    if name == "wbc":
        config.data.crop_size = 128  # px; the images are 88 to 120 px wide, the rest is void
    if name in ("nist_phase16", "folder"):
        config.data.normalization = "image_percentile"
    if name in ("wbc", "folder", "dsb2018", "nist_phase16"):
        config.split.group_by_source = True
    if name in ("folder", "irpe"):
        config.split.scheme = "auto"


def use_split(config: ConfigDict, split: str, fold: int) -> None:
    """Parts of the Feedback U-Net protocol where it has one, else the data set's own.

    split: `random` crops of ssTEM, or `sections`: fold k rotates over the source images (A9).
    """
    config.split.fold = fold
    if config.data.name == "sstem":
        config.evaluate.membrane = "membrane"
        if split == "random":
            config.split.update(scheme="random", counts=(192, 48, 80))
        else:
            config.split.update(scheme="rotate", folds=5, counts=(12, 3, 5))
    if config.data.name == "mouse_liver":
        config.evaluate.membrane = "membrane"
        config.split.update(scheme="rotate", folds=8, counts=(35, 5, 10))
        config.data.dihedral_copies = True
