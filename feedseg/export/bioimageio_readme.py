"""What people read in a bioimage.io package: fields of the card, and the README."""

import re

from feedseg.export.card import ModelCard
from feedseg.inference.trained import JaxPredictor
from feedseg.io import normalize
from feedseg.runtime import escape
from feedseg.runtime.errors import UserError
from feedseg.runtime.tables import markdown

_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"<>]+")
_URL = re.compile(r"https?://[^\s\"<>]+")


def check(card: dict) -> None:
    """Raises UserError for a citation without DOI or address, which bioimage.io demands."""
    text = card.get("citation", "")
    if text and not (_DOI.search(text) or _URL.search(text)):
        raise UserError(f"--citation {text!r}: bioimage.io wants a DOI or an address in it")


def fields(card: dict) -> dict:
    """description, authors, license and cite of the description, as far as the card has them."""
    found: dict = {"description": card.get("description", "")}
    if card.get("authors"):
        found["authors"] = [{"name": name} for name in authors(card)]
    if card.get("licence"):
        found["license"] = card["licence"]
    if card.get("citation"):
        found["cite"] = [_cited(card["citation"])]
    return found


def authors(card: dict) -> list[str]:
    """The names in `authors`, which have ; between them."""
    return [name for part in card.get("authors", "").split(";") if (name := part.strip())]


def _cited(text: str) -> dict:
    if doi := _DOI.search(text):
        return {"text": text, "doi": doi[0].rstrip(".,;)]")}
    return {"text": text, "url": _URL.search(text)[0].rstrip(".,;)]")}


def channels(count: int) -> list[str]:
    """Names of the channels of an image."""
    named = {1: ["grey"], 3: ["red", "green", "blue"]}
    return named.get(count, [f"channel {i + 1}" for i in range(count)])


def readme(name: str, model: JaxPredictor, kind: str, about: ModelCard) -> str:
    """README.md: what the model is for, how to give it images, its scores, and its limits.

    kind: pixel type of the images. about: its card.
    """
    card = {key: escape.markdown_line(text) for key, text in about.card.items()}
    classes = ", ".join(f"{i} {escape.markdown(each)}" for i, each in enumerate(model.class_names))
    network, data = map(escape.markdown, (about.network["name"], about.data or "unnamed data"))
    parts = [
        f"# {escape.markdown(name)}",
        card.get("description", ""),
        f"Semantic segmentation: each pixel's probabilities of {classes}. Network {network}, "
        f"trained on {data}.",
        "## Images",
        _images(model, kind),
        "## Validation",
        _scores(about.scores),
        *_rest(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _images(model: JaxPredictor, kind: str) -> str:
    if model.normalization in normalize.PERCENTILES:
        low, high = model.percentiles
        gray = f"The {low:g} and {high:g} percentile of each whole image become 0 and 1; any type."
    elif kind == "float32":
        gray = "Grey values have to be in [0, 1]."
    else:
        gray = f"Grey values are those of {kind}: rescale other images to its range first."
    if model.window:
        return f"{gray} The network sees whole images of {model.window} px; tiles do not fit."
    return (
        f"{gray} In tiles, the outer {model.halo} px of a result are to be thrown away, which the "
        "halo says. At the border of an image software adds as much around it, so results there "
        "differ from those of feedseg, which adds nothing."
    )


def _scores(scores: dict) -> str:
    """A table of the IoU on the model's own test part."""
    found = {name: values for name, values in scores.items() if "miou" in values}
    if not found:
        return "No scores are known. Compare its labels with your own truth before you trust it."
    classes = [key[4:] for key in next(iter(found.values())) if key.startswith("iou/")]
    rows = []
    for name, values in found.items():
        each = [values["miou"], *(values.get(f"iou/{key}", float("nan")) for key in classes)]
        rows.append([name, *(f"{100 * value:.1f}" for value in each)])
    text = "IoU in percent on the test part of its own data; the package holds the output `final`."
    return text + "\n\n" + "\n".join(markdown(["output", "mean", *classes], rows))


def _rest(card: dict) -> list[str]:
    titles = {
        "limits": "Limits",
        "licence": "Licence of the weights",
        "data_licence": "Licence of the images it was trained on",
        "citation": "To cite",
        "authors": "Authors",
    }
    return [f"## {title}\n\n{card[key]}" for key, title in titles.items() if card.get(key)]
