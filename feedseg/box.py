"""The trained models that come with feedseg, found by name."""

import difflib
from pathlib import Path

from feedseg import package
from feedseg.errors import UserError

FOLDER = Path(__file__).parent / "trained_models"


def models() -> dict[str, Path]:
    """Model files by name."""
    files = sorted(FOLDER.glob(f"*{package.SUFFIX}"))
    return {path.name.removesuffix(package.SUFFIX): path for path in files}


def find(where: str | Path) -> Path:
    """The path of a model: one that exists, or that of a model of this name.

    Raises UserError listing the names if it is neither.
    """
    path = Path(where)
    if path.exists() or path.name != str(where):
        return path
    known = models()
    if str(where) in known:
        return known[str(where)]
    near = difflib.get_close_matches(str(where), known, 1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    names = f" Models that come along: {', '.join(known)}." if known else ""
    raise UserError(f"{where}: no run directory, no model file and no such model{hint}{names}")


def card(described: dict) -> str:
    """What model.json says, as lines of text."""
    facts, scores = described["facts"], described["scores"]
    grey = "grey" if facts["channels"] == 1 else f"{facts['channels']} channels"
    lines = [
        f"network        {described['network']['name']}, made by feedseg {described['feedseg']}",
        f"data           {described['data']}, {grey}, seen {facts['size_px']} px at once",
        f"classes        {', '.join(facts['class_names'])}",
        f"normalisation  {facts['normalization']}",
    ]
    for output, values in scores.items():
        each = [f"{key[4:]} {100 * v:.1f}" for key, v in values.items() if key.startswith("iou/")]
        lines.append(f"IoU, {output:9} mean {100 * values['miou']:.1f}; {', '.join(each)}")
    lines += [f"{key.replace('_', ' '):14} {text}" for key, text in described["card"].items()]
    return "\n".join(lines)


def listing() -> str:
    """Name, classes, mean IoU on the model's own test part, and what it is for."""
    lines = []
    for name, path in models().items():
        described = package.read_manifest(path)
        card, final = described["card"], described["scores"].get("final", {})
        score = f"{100 * final['miou']:.1f}" if "miou" in final else "-"
        classes = ", ".join(described["facts"]["class_names"])
        lines.append(f"{name:16} mean IoU {score:>5}  {classes}\n    {card.get('description', '')}")
    return "\n".join(lines)
