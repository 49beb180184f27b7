"""Sample data: the image by which a model proves itself, a part of one it was not trained on."""

from feedseg.inference import bundled


def _sample(name: str) -> list[tuple]:
    from feedseg.inference import model_file

    image = model_file.read(bundled.models()[name]).test_input[0]
    color = image.shape[-1] > 1
    settings = {"name": f"{name} test image", "rgb": color, "contrast_limits": (0, 1)}
    return [(image if color else image[..., 0], settings, "image")]


def sstem() -> list[tuple]:
    """Layer data of the test image of the model `sstem`, [H, W] float32 in [0, 1]."""
    return _sample("sstem")


def wbc() -> list[tuple]:
    """Layer data of the test image of the model `wbc`, [H, W, 3] float32 in [0, 1]."""
    return _sample("wbc")


def isbi2012() -> list[tuple]:
    """Layer data of the test image of the model `isbi2012`, [H, W] float32 in [0, 1]."""
    return _sample("isbi2012")


def nuclei() -> list[tuple]:
    """Layer data of the test image of the model `nuclei`, [H, W] float32 in [0, 1]."""
    return _sample("nuclei")
