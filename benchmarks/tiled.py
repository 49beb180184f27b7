"""How far tiles and windows are from the whole image, for every network.

    python -m benchmarks.tiled --output results/benchmarks/tiled.json
    python -m benchmarks.tiled --only U-Net sstem

A section of ssTEM (1024 x 1024 px, below FEEDSEG_DATA) by `segment.predict_rows`, as `feedseg
predict` does it, and by one call for the whole image. Networks are narrow (4 to 64 or 8 to 128
channels) where the width can be chosen, as tiles depend on the depth alone, with initial weights
and running statistics of the image itself (a training pass over a crop with a momentum of 0). The
bundled models are trained.

max_difference: largest difference of a probability; differing_labels: share of pixels with another
class. Untrained networks are undecided, which makes their labels change more easily: `confidence`
is the mean probability of the chosen class. Convolutional networks keep the centers of tiles,
which should leave rounding only. For networks that depend on the whole window the whole image is
another input than windows as in training; the difference says how much that matters to the network
and nothing of the tiles. The effect of windows is given by `shifted_difference` and
`shifted_labels`: the same pixels in windows that lie a quarter of a window further, and by `seam`:
the mean step of probabilities across the borders of windows / the mean step elsewhere, 1 where no
border shows. `..._of_centres`: the same if a quarter of a window were cut off on each side instead.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from configs import common
from feedseg import datasets, models
from feedseg.inference import bundled, loading, segment, tiling
from feedseg.inference import trained as trained_models
from feedseg.inference.trained import JaxPredictor
from feedseg.io import images, normalize
from feedseg.io.source import ImageSource

SIDE = 1024  # px, of the image
WINDOW = 256  # px, of networks that depend on it
PART = 512  # px, of the image that is looked at for what windows do
NARROW = dict(filters=(4, 8, 16, 32, 64))
WIDE = dict(filters=(8, 16, 32, 64, 128))
NETWORKS = {
    "U-Net": ("unet", WIDE),
    "original U-Net": ("unet_original", NARROW),
    "U-Net of 3 convolutions": ("kato_unet", NARROW),
    "blood-cell U-Net": ("blood_unet", NARROW),
    "RU-Net": ("ru_net", NARROW),
    "R2U-Net": ("ru_net", dict(NARROW, up="nearest", residual=True)),
    "UNet++": ("unet_plus_plus", NARROW),
    "UNet++, Keras form": ("unet_plus_plus", dict(NARROW, form="keras")),
    "UNet++, form of UNet 3+": ("unet_plus_plus", dict(NARROW, form="zju")),
    "Attention U-Net": ("attention_unet", NARROW),
    "Attention U-Net, original form": ("attention_unet", dict(NARROW, form="oktay")),
    "UNet 3+": ("unet3plus", dict(NARROW, skip_channels=4)),
    "SA-UNet": ("sa_unet", {}),
    "SAUNet": ("saunet", dict(growth=8, decoder=(128, 64, 32, 16, 12, 8))),
    "AEP's network 2": ("aep_net", {}),
    "AEP + AWEL": ("aep", {}),
    "Feedback U-Net": ("feedback_unet", NARROW),
    "Feedback U-Net, recurrent": ("feedback_unet", dict(NARROW, unit="rcl_shared")),
    "attention add": ("feedback_attention", dict(NARROW, connection="add")),
    "attention conv1x1": ("feedback_attention", dict(NARROW, connection="conv1x1")),
    "attention light": ("feedback_attention", dict(NARROW, connection="light")),
    "attention se": ("feedback_attention", dict(WIDE, connection="se")),
    "attention source_target": ("feedback_attention", dict(WIDE, connection="source_target")),
    "attention self": ("feedback_attention", dict(WIDE, connection="self")),
}
FACTS = dict(
    class_names=["a", "b", "c", "d"],
    class_colors=[[0, 0, 0]] * 4,
    channels=1,
    size_px=[WINDOW, WINDOW],
    normalization="dtype_range",
    percentiles=[1.0, 99.0],
)


def section(side: int) -> np.ndarray:
    """The middle of the first section of ssTEM, [side, side, 1] uint8."""
    folder = datasets.find_root("sstem", "") / "stack1" / "raw"
    image = images.read_array(images.list_images(folder)[0])[0]
    first = (image.shape[0] - side) // 2
    return image[first : first + side, first : first + side]


def untrained(name: str, changes: dict, image: np.ndarray) -> JaxPredictor:
    """A network with initial weights and the running statistics of a crop, connections open."""
    settings = common.model(name, **changes)
    if "use_scale" in settings:  # its factor starts at 0, which hides what is fed back
        settings["use_scale"] = False
    model = models.build(4, settings)
    crop = jnp.asarray(image[None, :WINDOW, :WINDOW] / 255, jnp.float32)
    variables = jax.jit(lambda: model.init(jax.random.key(0), crop, train=False))()
    if "batch_stats" in variables:
        training = functools.partial(
            model.clone(bn_momentum=0.0).apply, train=True, mutable=["batch_stats"]
        )
        variables |= jax.jit(training)(variables, crop, rngs={"dropout": jax.random.key(1)})[1]
    return trained_models.make_predictor(model, {"batch_stats": {}, **variables}, "float32", FACTS)


def timed(action: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """Its result and seconds."""
    begun = time.perf_counter()
    return action(), time.perf_counter() - begun


def scaled(model: JaxPredictor, image: np.ndarray) -> np.ndarray:
    """The image as the network takes it."""
    return normalize.apply(image, *normalize.limits(image, model.normalization, model.percentiles))


def by_tiles(model: JaxPredictor, image: np.ndarray, tile: int = 0) -> np.ndarray:
    """Probabilities [H, W, K] as `feedseg predict` computes them."""
    pages = image[None]
    source = ImageSource(
        Path("section"), pages.shape, pages.dtype, lambda page, first, last: image[first:last]
    )
    return np.concatenate(list(segment.predict_rows(loading.for_images(model), source, tile)))


def centers(model: JaxPredictor, image: np.ndarray) -> np.ndarray:
    """Windows of which only the center is kept: what blending should be better than."""
    layout = tiling.plan(*image.shape[:2], model.window, model.window // 4, model.stride)
    return tiling.apply_tiled(scaled(model, image), model.apply, layout)


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Largest difference of a probability, and the share of pixels with another class."""
    labels = one.argmax(-1) != other.argmax(-1)
    return float(np.abs(one - other).max()), float(labels.mean())


def seam(found: np.ndarray, borders: Sequence[int], stride: int) -> float:
    """Mean step from pixel to pixel across these columns and rows / elsewhere.

    Elsewhere: where pixels meet that are neighbors on the network's coarsest grid too.
    """
    at, elsewhere = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(found, axis=axis)).mean((1 - axis, 2))
        others = np.setdiff1d(np.arange(stride, len(steps), stride), borders)
        at.append(steps[np.array(borders) - 1].mean())
        elsewhere.append(steps[others - 1].mean())
    return float(np.mean(at) / np.mean(elsewhere))


def of_windows(model: JaxPredictor, image: np.ndarray) -> dict:
    """What the places of windows do to the result, blended and with centers kept."""
    side, shift = len(image), model.window // 4
    blended = [span.start for span in tiling.windows(side, side, model.window).rows[1:]]
    plan = tiling.plan(side, side, model.window, shift, model.stride)
    kept = [span.keep for span in plan.rows[1:]]
    inner = slice(3 * shift, side - 3 * shift)  # where no window ends with the image
    numbers = {}
    for name, way, borders in (("", by_tiles, blended), ("_of_centres", centers, kept)):
        result = way(model, image)
        moved = np.full_like(result, np.nan)
        moved[shift:-shift, shift:-shift] = way(model, image[shift:-shift, shift:-shift])
        difference, labels = apart(result[inner, inner], moved[inner, inner])
        numbers[f"seam{name}"] = seam(result, borders, model.stride)
        numbers[f"shifted_difference{name}"] = difference
        numbers[f"shifted_labels{name}"] = labels
    return numbers


def tile_side(model: JaxPredictor, side: int) -> int:
    """A tile that cuts the image into 3 x 3, one of them without a border of the image, px."""
    return tiling.round_up(-(-(side + 4 * model.halo) // 3), model.stride)


def case(model: JaxPredictor, image: np.ndarray) -> dict:
    """One network on one image; every shape is computed once before it is timed."""
    tiles = loading.for_images(model)
    tile = 0 if model.window else tile_side(tiles, len(image))
    layout = segment.tiles_for(tiles, *image.shape[:2], tile)
    by_tiles(model, image[: layout.window[0], : layout.window[1]], tile)

    def at_once() -> np.ndarray:
        return np.asarray(model.apply(scaled(model, image)[None]))[0]

    at_once()
    whole, seconds_whole = timed(at_once)
    found, seconds_tiled = timed(lambda: by_tiles(model, image, tile))
    difference, labels = apart(found, whole)
    return {
        "side": len(image),
        "rule": "blended windows" if model.window else "centers of tiles",
        "tile": layout.window[0],
        "halo": None if model.window else tiles.halo,
        "overlap": layout.overlap or None,
        "tiles": layout.num_tiles,
        "max_difference": difference,
        "differing_labels": labels,
        "confidence": float(whole.max(-1).mean()),
        "seconds_whole": seconds_whole,
        "seconds_tiled": seconds_tiled,
        **(of_windows(model, image[:PART, :PART]) if model.window else {}),
    }


def cases(only: Sequence[str]) -> Iterator[tuple[str, str, JaxPredictor, np.ndarray]]:
    """Name, kind of weights, model and image of the networks asked for."""
    for name, (network, changes) in NETWORKS.items():
        if not only or name in only:
            image = section(SIDE)
            yield name, "initial", untrained(network, changes, image), image
    for name in bundled.models():
        if not only or name in only:
            model = loading.load(name)
            yield name, "trained", model, np.repeat(section(SIDE), model.channels, -1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="names, see the file")
    parser.add_argument("--output", type=Path, help="JSON file that keeps the cases")
    options = parser.parse_args()
    line = measure.Lines(options.output, ("case", "network", "weights", "device"))
    facts = measure.machine()
    for name, weights, model, image in cases(options.only):
        line(case="tiled", network=name, weights=weights, **case(model, image), **facts)


if __name__ == "__main__":
    main()
