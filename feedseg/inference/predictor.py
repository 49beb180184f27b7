"""What prediction needs of a trained model, whichever library computes it."""

from collections.abc import Callable
from typing import Protocol


class Predictor(Protocol):
    """What prediction needs of a trained model."""

    apply: Callable  # image [N, H, W, C] float32 in [0, 1] -> probabilities [N, H, W, K]
    stride: int  # total down-sampling, px
    halo: int  # radius of the receptive field, px
    window: int  # px, side of the windows that a network of whole images takes; 0: any
    margin: int  # px on each side of a tile without result (unpadded convolutions), else 0
    channels: int
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]  # RGB 0-255
    normalization: str
    percentiles: tuple[float, float]
    contracts: tuple[tuple[str, tuple[float, float]], ...]  # see `feedseg.inference.trained`
    tile: int  # px, side of the tiles of a program that takes only these; 0: any
