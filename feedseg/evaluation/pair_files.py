"""Pairs the label images of two folders by their file names."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.datasets import folder
from feedseg.datasets.common.dataset import VOID
from feedseg.io.reading import AS_STATED, ReadOptions
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import is_file
from feedseg.runtime.names import one_form
from feedseg.runtime.notes import note

# Suffixes that feedseg, Cellpose, QuPath, ilastik and annotators append to the names of label
# images, in upper or lower case; names are compared without them.
ENDINGS = (
    *("_labels", "_label", "-labels", "-labeled", "_cp_masks", "_masks", "_mask"),
    *("_prediction", "_predictions", "_pred", "_seg", "_segmentation", "_simple segmentation"),
    *("_truth", "_groundtruth", "_ground_truth", "_gt", ".ome"),
)
PROBABILITIES = "_probabilities"
NO_LABELS = ("_uncertainty", "_overlay", "_instances")  # other outputs of `feedseg predict`


class PredictionPair(NamedTuple):
    """A predicted label file, its truth, and the probabilities beside the prediction if any."""

    name: str
    predicted: Path
    truth: Path
    probabilities: Path | None
    how: ReadOptions = AS_STATED  # both are read
    ignore: int | None = None  # label value of the truth that is void, beside 255


def read_truth(pair: PredictionPair) -> np.ndarray:
    """The true labels, [P, H, W] of an unsigned type, 255 where they do not count."""
    from feedseg.io.images import read_label

    return folder.without_ignored(read_label(pair.truth, pair.how), pair.ignore)


def ignored(truth: Path) -> int | None:
    """The label value that the dataset.json in the folder of labels, or above it, says is void.

    Said where there is one. A dataset.json that describes no labels so is somebody else's.
    """
    above = truth if truth.is_dir() else truth.parent
    for place in (above, above.parent):
        if is_file(place / "dataset.json"):
            try:
                value = folder.describe(place).ignore
            except UserError:
                return None
            if value not in (None, VOID):
                note("ignored", f"{place / 'dataset.json'}: label {value} is ignored")
            return value
    return None


def pair_files(pred: Path, truth: Path, how: ReadOptions = AS_STATED) -> list[PredictionPair]:
    """Label files of `pred` and `truth` that belong together, in the order of their names.

    Names are compared without suffix and without the `ENDINGS` of either side: `a_pred.tif`,
    `a_labels.png` and `a.tif` are all `a`. Files `<name>_probabilities` and those with one of
    `NO_LABELS` are not label images. Folders that hold sub-folders alone, as `feedseg predict`
    makes them of equal names, are compared with these.
    Two single files form a pair whatever their names.
    Raises UserError that lists the files without a partner, or two files of one name.
    """
    predicted, probabilities = _by_name(pred)
    true, _ = _by_name(truth)
    if pred.is_file() and truth.is_file():
        return [PredictionPair(plain_name(pred), pred, truth, _beside(pred), how)]
    alone = [predicted[name] for name in predicted.keys() - true.keys()]
    missing = [true[name] for name in true.keys() - predicted.keys()]
    if alone or missing:
        parts = [f"{_list(alone)} without truth in {truth}"] if alone else []
        parts += [f"{_list(missing)} without prediction in {pred}"] if missing else []
        raise UserError(
            f"files are paired by name, and these have no partner: {'; '.join(parts)}; "
            "rename, add or remove them"
        )
    return [
        PredictionPair(name, predicted[name], true[name], probabilities.get(name), how)
        for name in sorted(true)
    ]


def plain_name(path: Path) -> str:
    """File name without suffix and without the endings that tools append."""
    return _plain(one_form(path.stem))


def _plain(name: str) -> str:
    while length := _ending(name):
        name = name[:-length]
    return name


def _ending(name: str) -> int:
    """Length of the suffix that a tool appended, 0 if none; never the whole name."""
    fits = (e for e in ENDINGS if name.lower().endswith(e) and len(name) > len(e))
    return len(next(fits, ""))


def _files(where: Path) -> list[Path]:
    """Images of a folder, or those of its sub-folders where it holds none itself."""
    from feedseg.io.images import is_image, list_images

    if where.is_dir() and not any(is_image(each) for each in where.iterdir()):
        deep = sorted(path for path in where.glob("**/*") if is_image(path))
        if deep := [p for p in deep if not any(is_image(above) for above in p.parents)]:
            return deep
    return list_images(where)


def _by_name(where: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Label files and probability files, each by plain name, with its sub-folder if it has one."""
    labels: dict[str, Path] = {}
    probabilities: dict[str, Path] = {}
    for path in _files(where):
        below = Path() if path == where else path.parent.relative_to(where)
        if path.stem.endswith(PROBABILITIES):
            plain = _plain(one_form(path.stem.removesuffix(PROBABILITIES)))
            probabilities[(below / plain).as_posix()] = path
            continue
        if path.stem.endswith(NO_LABELS):
            continue
        name = (below / plain_name(path)).as_posix()
        if name in labels:
            raise UserError(
                f"{path} and {labels[name].name} both have name {name!r}; keep one of them, and "
                "the labels in a folder without the images"
            )
        labels[name] = path
    return labels, probabilities


def _beside(pred: Path) -> Path | None:
    """The probability file of a single label file, if there is one."""
    path = pred.with_name(_plain(pred.stem) + PROBABILITIES + pred.suffix)
    return path if is_file(path) else None


def _list(paths: list[Path]) -> str:
    names = sorted(path.name for path in paths)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
