"""feedseg: semantic segmentation of microscopy images with feedback networks, in JAX/Flax."""

__version__ = "0.1.0"


def load(model, *, checkpoint: str = "best", rounds: int = 0):
    """A trained model for arrays (`feedseg.inference.segmenter.Segmenter`); only this loads JAX.

    model: a run directory, a model file, or the name of a bundled one; or several; or
    an ONNX file.
    """
    from feedseg.inference.segmenter import Segmenter

    return Segmenter(model, checkpoint=checkpoint, rounds=rounds)
