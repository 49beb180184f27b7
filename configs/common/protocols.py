"""Data sets with the preparation they need, and the splits of the papers."""

from ml_collections import ConfigDict

from feedseg import datasets


def use_dataset(config: ConfigDict, name: str) -> None:
    """Select a data set with the preparation that it needs."""
    config.data.name = name
    config.update(datasets.preparation(name))


def use_split(config: ConfigDict, split: str, fold: int) -> None:
    """Parts of the Feedback U-Net protocol where it has one, else the data set's own.

    split: `random` crops of ssTEM, or `sections`: fold k rotates over the source images, so that
    no image has crops in two parts.
    """
    config.split.fold = fold
    if changes := datasets.protocol(config.data.name, split):
        config.update(changes)
        config.evaluate.membrane = datasets.border_class(config.data.name)
