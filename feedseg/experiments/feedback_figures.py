"""`feedseg figures RUN`: visualizations of a trained network with feedback or filters.

Rounds and what changed between them; the first layer's features of each round (Feedback U-Net
Fig. 8); attention of chosen pixels (Feedback Attention Fig. 4); filters, translated images, members
and ensemble weights (AEP Figs. 10, 11, 13); attention gates; edges. A figure is drawn if the
network has the outputs it shows.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import expit

from feedseg import datasets
from feedseg.datasets.common import splits
from feedseg.evaluation import test_split
from feedseg.evaluation.figures import ensemble_weights
from feedseg.evaluation.panel import panel
from feedseg.inference.segment import fit_channels
from feedseg.inference.trained import JaxPredictor, load_run, read_variables
from feedseg.io import normalize
from feedseg.io.colors import as_rgb, grey_as_rgb
from feedseg.io.images import read_array
from feedseg.models.feedback.attention import attention_rows
from feedseg.runs.directory import RunDir
from feedseg.runtime.errors import UserError
from feedseg.runtime.output_lock import hold_folder
from feedseg.runtime.rounding import round_up

CORRECTED, SPOILED, OTHERWISE = (0, 170, 0), (220, 0, 0), (230, 170, 0)
LARGEST = 1024  # px, side of the part of a large image that is shown


class NetworkOutputs(NamedTuple):
    """Images, their truth if known, and the outputs of the network."""

    image: np.ndarray  # [N, H, W, C] in [0, 1]
    truth: np.ndarray | None  # [N, H, W]
    logits: np.ndarray  # [N, H, W, K]
    out: dict[str, np.ndarray]
    predictor: JaxPredictor
    pixels: tuple[tuple[int, int], ...]  # (y, x) chosen by the user; empty: one per class


def figures(
    run: Path,
    output: Path | None = None,
    *,
    image: Path | None = None,
    count: int = 3,
    pixels: Sequence[tuple[int, int]] = (),
    rounds: int = 0,
    checkpoint: str = "best",
) -> list[Path]:
    """Draw all figures that the outputs of a run's network allow; returns the files.

    output: folder, by default `RUN/figures`. image: a file to use instead of `count` test
    images.
        pixels: (y, x) whose attention is drawn, by default the innermost pixel of each class.
    rounds, checkpoint: as in prediction.
    Raises UserError for a folder without a run, a pixel outside the image, or a network that
    has none of these outputs.
    """
    predictor = load_run(run, checkpoint, rounds)
    images, truth = _of_file(image, predictor) if image else _of_run(run, count)
    height, width = images.shape[1:3]
    for y, x in pixels:
        if not (0 <= y < height and 0 <= x < width):
            raise UserError(f"pixel {y},{x} is outside the image of {height} x {width} px")
    logits, out = predictor.outputs(images)
    logits, out = np.asarray(logits, np.float32), {k: np.asarray(v) for k, v in out.items()}
    outputs = NetworkOutputs(images, truth, logits, out, predictor, tuple(pixels))
    drawings = [draw for needed, draw in DRAWINGS if needed in out]
    if not drawings:
        raise UserError(
            f"{run}: this network has no rounds, filters, members, attention or edges to draw"
        )
    folder = Path(output) if output else Path(run) / "figures"
    with hold_folder(folder):
        return [*(draw(outputs, folder) for draw in drawings), *_learned(run, checkpoint, folder)]


def _learned(run: Path, checkpoint: str, folder: Path) -> list[Path]:
    """The figure of learned ensemble weights, where the network has them."""
    weights = read_variables(run, checkpoint)["params"].get("awel", {}).get("weights")
    if weights is None:
        return []
    return [ensemble_weights(np.asarray(weights), folder / "ensemble_weights.png")]


# Images ------------------------------------------------------------------------------


def _of_run(run: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced test images of the run, and their truth."""
    if count < 1:
        raise UserError(f"--count {count}: at least 1")
    config = RunDir(run).stored_config()
    dataset = datasets.load(config)
    chosen = test_split.evenly(splits.split(dataset, config.split).test, count)
    dataset = test_split.shown(dataset)
    return test_split.normalized(dataset, chosen), dataset.labels[chosen]


def _of_file(path: Path, predictor: JaxPredictor) -> tuple[np.ndarray, None]:
    """First page of a file, cropped to its center if it is too large to show."""
    page = fit_channels(path, read_array(path), predictor.channels)[0]
    low, high = normalize.limits(page, predictor.normalization, predictor.percentiles)
    image = normalize.apply(page, low, high)
    for axis in (0, 1):
        side = predictor.window or min(
            round_up(image.shape[axis], predictor.stride),
            LARGEST // predictor.stride * predictor.stride,
        )
        begin = max(0, (image.shape[axis] - side) // 2)
        image = np.take(image, np.arange(begin, min(begin + side, image.shape[axis])), axis)
        missing = [(0, side - image.shape[axis] if a == axis else 0) for a in range(3)]
        image = np.pad(image, missing, mode="symmetric")
    return image[None], None


def _begin(outputs: NetworkOutputs, n: int) -> dict[str, np.ndarray]:
    """First columns of every panel: the image and its truth."""
    row = {"input": test_split.picture(outputs.image[n])}
    if outputs.truth is not None:
        row["truth"] = outputs.truth[n].astype(np.int32)
    return row


def _panel(outputs: NetworkOutputs, columns: Callable[[int], dict], path: Path) -> Path:
    """A panel with one row per image: input, truth, and the given columns."""
    rows = [_begin(outputs, n) | columns(n) for n in range(len(outputs.image))]
    panel(rows, path, outputs.predictor.class_names, outputs.predictor.class_colors)
    return path


def _classes(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(-1).astype(np.int32)


# The figures ------------------------------------------------------------------------------------


def rounds(outputs: NetworkOutputs, folder: Path) -> Path:
    """Prediction of each round, and the changes from one to the next."""
    predicted = _classes(outputs.out["rounds"])

    def columns(n: int) -> dict:
        row = {}
        truth = None if outputs.truth is None else outputs.truth[n]
        for t in range(len(predicted)):
            if t:
                note = "corrected green, spoiled red" if truth is not None else "changes"
                row[f"round {t + 1} {note}"] = changes(
                    outputs.image[n], predicted[t - 1, n], predicted[t, n], truth
                )
            row[f"round {t + 1}"] = predicted[t, n]
        return row

    return _panel(outputs, columns, folder / "rounds.png")


def changes(
    image: np.ndarray, before: np.ndarray, after: np.ndarray, truth: np.ndarray | None
) -> np.ndarray:
    """The image, faint, with colored pixels where the class has changed, uint8 [H, W, 3].

    Green: wrong before, right now; red: right before, wrong now; yellow: from one wrong class to
    another, or truth unknown.
    """
    rgb = np.rint(255 * (0.5 + 0.5 * grey_as_rgb(as_rgb(image).mean(-1)))).astype(np.uint8)
    changed = before != after
    rgb[changed] = OTHERWISE
    if truth is not None:
        rgb[changed & (after == truth)] = CORRECTED
        rgb[changed & (before == truth)] = SPOILED
    return rgb


def features(outputs: NetworkOutputs, folder: Path) -> Path:
    """Sum of the first layer's channels in each round (Feedback U-Net Fig. 8)."""
    maps = outputs.out["first_features"].astype(np.float32)
    return _panel(
        outputs,
        lambda n: {f"features {t + 1}": maps[t, n] for t in range(len(maps))},
        folder / "features.png",
    )


def attention(outputs: NetworkOutputs, folder: Path) -> Path:
    """Weights of chosen pixels over the image, 1 being the mean (Feedback Attention Fig. 4)."""
    height, width = outputs.image.shape[1:3]

    def columns(n: int) -> dict:
        labels = _classes(outputs.logits[n]) if outputs.truth is None else outputs.truth[n]
        names = outputs.predictor.class_names
        chosen = {f"pixel {y},{x}": (y, x) for y, x in outputs.pixels} or {
            name: inner
            for k, name in enumerate(names)
            if (inner := innermost(labels == k)) is not None
        }
        queries = np.stack([outputs.out["query"][n, y * width + x] for y, x in chosen.values()])
        weights = np.asarray(attention_rows(queries, outputs.out["key"][n]))
        side = round((height * width / weights.shape[1]) ** 0.5)  # keys may be pooled
        row = {"chosen pixels": marked(outputs.image[n], list(chosen.values()))}
        for name, values in zip(chosen, weights, strict=True):
            grid = (values * values.size).reshape(height // side, width // side)
            row[f"attention of {name}"] = np.kron(grid, np.ones((side, side), np.float32))
        return row

    return _panel(outputs, columns, folder / "attention.png")


def innermost(mask: np.ndarray) -> tuple[int, int] | None:
    """The pixel (y, x) farthest from the border of a region, None if the region is empty."""
    if not mask.any():
        return None
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return int(y), int(x)


def marked(image: np.ndarray, pixels: Sequence[tuple[int, int]]) -> np.ndarray:
    """The image with a cross around each of some pixels, uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    arm = max(4, min(height, width) // 24)
    cross = np.zeros((height + 2 * arm, width + 2 * arm), bool)  # padded for crosses at the edge
    for y, x in pixels:
        cross[y : y + 2 * arm + 1, x + arm - 1 : x + arm + 2] = True
        cross[y + arm - 1 : y + arm + 2, x : x + 2 * arm + 1] = True
        cross[y + arm - 2 : y + arm + 3, x + arm - 2 : x + arm + 3] = False
    rgb = np.rint(255 * as_rgb(image)).astype(np.uint8)
    rgb[cross[arm:-arm, arm:-arm]] = (255, 220, 0)
    return rgb


def filters(outputs: NetworkOutputs, folder: Path) -> Path:
    """Every filter and the image that it translates (AEP Fig. 13)."""

    def columns(n: int) -> dict:
        row = {}
        for i, translated in enumerate(outputs.out["translated"]):
            row[f"filter {i + 1}"] = outputs.out["filters"][n, ..., i].astype(np.float32)
            row[f"translated {i + 1}"] = test_split.picture(translated[n].astype(np.float32))
        return row

    return _panel(outputs, columns, folder / "filters.png")


def members(outputs: NetworkOutputs, folder: Path) -> Path:
    """The maps that the ensemble combines, and the result (AEP Fig. 10)."""

    def columns(n: int) -> dict:
        maps = _classes(outputs.out["members"][:, n])
        row = {"network 1": maps[0]}
        row |= {f"network 2, image {i}": labels for i, labels in enumerate(maps[1:], 1)}
        return row | {"final": _classes(outputs.logits[n])}

    return _panel(outputs, columns, folder / "members.png")


def gates(outputs: NetworkOutputs, folder: Path) -> Path:
    """Maps of the attention gates, 0 to 1, and the result (Attention U-Net Fig. 4)."""

    def columns(n: int) -> dict:
        maps = outputs.out["attention"][:, n].astype(np.float32)
        row = {f"attention {i}": weights for i, weights in enumerate(maps, 1)}
        return row | {"final": _classes(outputs.logits[n])}

    return _panel(outputs, columns, folder / "gates.png")


def edges(outputs: NetworkOutputs, folder: Path) -> Path:
    """Canny's edges, those of the shape stream as probabilities, and the result (SAUNet Fig. 3)."""

    def columns(n: int) -> dict:
        return {
            "Canny": outputs.out["canny"][n, ..., 0],
            "edges": expit(outputs.out["edge"][n, ..., 0].astype(np.float32)),
            "final": _classes(outputs.logits[n]),
        }

    return _panel(outputs, columns, folder / "edges.png")


DRAWINGS = (  # needed output, figure
    ("rounds", rounds),
    ("first_features", features),
    ("query", attention),
    ("filters", filters),
    ("members", members),
    ("attention", gates),
    ("edge", edges),
)
