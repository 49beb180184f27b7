"""The trained models that come with feedseg, found by name."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from feedseg.runtime import escape
from feedseg.runtime.errors import UserError
from feedseg.runtime.suggest import did_you_mean

FOLDER = Path(__file__).parent / "trained_models"
SUFFIX = ".feedseg.zip"


def models() -> dict[str, Path]:
    """Model files by name."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def find(where: str | Path) -> Path:
    """The path of a model: one that exists, or that of a model of this name.

    A folder that is no run, such as that of a data set, does not hide a name.
    Raises UserError listing the names if it is neither.
    """
    path, known = Path(where), models()
    if str(where) in known and not (path.is_file() or (path / "config.json").exists()):
        return known[str(where)]
    if path.exists() or path.name != str(where):
        return path
    hint = did_you_mean(str(where), known, "")
    names = f" Bundled models: {', '.join(known)}." if known else ""
    raise UserError(f"{where}: no run directory, no model file and no such model{hint}{names}")


def fingerprint(where: str | Path | Sequence[str | Path], checkpoint: str = "best") -> str:
    """SHA-256 of a model file, or of the configuration and the newest checkpoint of a run.

    Of several models that of their fingerprints in order.
    """
    if not isinstance(where, str | Path):
        each = [fingerprint(model, checkpoint) for model in where]
        return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()
    path = find(where)
    files = [path]
    if path.is_dir():
        folder = "best" if checkpoint == "best" else "checkpoints"
        records = path.glob(f"{folder}/*/record/metadata")
        newest = max(records, key=lambda file: file.stat().st_mtime_ns, default=None)
        files = [path / "config.json", *([newest] if newest else [])]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, files):
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def card(described: dict) -> str:
    """What model.json says, as lines of text."""
    facts, scores = described["facts"], described["scores"]
    gray = "grey" if facts["channels"] == 1 else f"{facts['channels']} channels"
    lines = [
        f"network        {described['network']['name']}, made by feedseg {described['feedseg']}",
        f"data           {described['data']}, {gray}, seen {facts['size_px']} px at once",
        f"classes        {', '.join(facts['class_names'])}",
        f"normalization  {facts['normalization']}{_limits(facts)}",
    ]
    if members := described["network"].get("members"):
        lines.insert(1, f"members        {described['network']['rule']} of {', '.join(members)}")
    for output, values in scores.items():
        each = [f"{k[4:]} {_percent(v)}" for k, v in values.items() if k.startswith("iou/")]
        lines.append(f"IoU, {output:9} mean {_percent(values.get('miou'))}; {', '.join(each)}")
    lines += [f"{key.replace('_', ' '):14} {text}" for key, text in described["card"].items()]
    return "\n".join(map(escape.visible, lines))


def _percent(score: float | None) -> str:
    """Of a class that the test part lacks there is none."""
    return "-" if score is None else f"{100 * score:.1f}"


def _limits(facts: dict) -> str:
    """The percentiles where they count."""
    counted = facts["normalization"] != "dtype_range"
    return " {:g} to {:g}".format(*facts["percentiles"]) if counted else ""


def listing() -> str:
    """Name, classes, mean IoU on the model's own test part, and what it is for."""
    from feedseg.inference import model_file

    lines = []
    for name, path in models().items():
        described = model_file.read_manifest(path)
        about, final = described["card"], described["scores"].get("final", {})
        score = _percent(final.get("miou"))
        classes = ", ".join(described["facts"]["class_names"])
        lines.append(f"{name:16} mean IoU {score:>5}  {classes}")
        lines.append(f"    {about.get('description', '')}")
    return "\n".join(map(escape.visible, lines))
