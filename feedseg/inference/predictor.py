"""What prediction needs of a trained model, whichever library computes it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from feedseg.io.object_size import Diameters


class TrainingImages(NamedTuple):
    """What a model has seen, as far as it is known; by it images of another kind show.

    objects: by class name, those that consist of objects; pixel_um: side of a pixel, micrometers;
    brightest: largest gray value, as a part of the full scale of its type.
    """

    objects: dict[str, Diameters] = {}
    pixel_um: float | None = None
    brightest: float = 1.0

    @classmethod
    def of(cls, facts: dict) -> "TrainingImages":
        """Those in data.json, a model file or an ONNX file; older ones say nothing."""
        stored = facts.get("training_images") or {}
        objects = {name: Diameters(*each) for name, each in stored.get("objects", {}).items()}
        return cls(objects, stored.get("pixel_um"), stored.get("brightest", 1.0))

    def plain(self) -> dict:
        """As JSON stores it."""
        objects = {name: list(each) for name, each in self.objects.items()}
        return {"objects": objects, "pixel_um": self.pixel_um, "brightest": self.brightest}


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
    training_images: TrainingImages
