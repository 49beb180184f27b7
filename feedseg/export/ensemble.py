"""Makes one model file of several trained models, and says what the ensemble gains.

    each member | the mean of their scores | their probabilities averaged | learned weights

on the validation images and on the test images that all members share. Weights are learned from
the validation images alone; the test images only measure.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feedseg.evaluation import metrics
from feedseg.evaluation.tables import iou_table
from feedseg.export import ensemble_weights as learning
from feedseg.export.ensemble_data import answers, common_parts
from feedseg.inference import bundled, ensemble, loading, model_file
from feedseg.inference.trained import JaxPredictor
from feedseg.runtime import xla
from feedseg.runtime.errors import UserError
from feedseg.runtime.tables import percent

MEMBERS_MEAN, AVERAGED, LEARNED = "mean of the members", "averaged", "learned weights"


class Chosen(NamedTuple):
    """How the members are put together, and what is known about it (`ensemble` in model.json)."""

    rule: str
    weights: np.ndarray
    facts: dict


def make(
    models: Sequence[str | Path],
    to: Path,
    card: dict,
    *,
    learn: bool = False,
    checkpoint: str = "best",
    overwrite: bool = False,
) -> str:
    """Write an ensemble of models as one file; returns the table of scores and the gain as text.

    models: run directories, folders of them, model files, names of `feedseg models`. learn: AWEL's
    weights from the validation images of the runs, which are used if they beat averaging on
    images that they were not learned from. card: as in `loading.export`.
    Without `learn` it is also made of models whose data are not here, without a table.
    Raises UserError if two models do not fit each other, nothing can be learned, or `to` cannot
    be written.
    """
    with loading.target(to, overwrite) as to:
        return _make(models, to, card, learn, checkpoint)


def _make(models: Sequence, to: Path, card: dict, learn: bool, checkpoint: str) -> str:
    xla.keep_programs()
    paths = find_members(models)
    names = short_names(paths)
    members = [loading.load(path, checkpoint) for path in paths]
    ensemble.check(members, paths)
    try:
        chosen = choose(members, paths, names, learn)
    except UserError as error:
        if learn:
            raise
        plain = ensemble.equal_weights(len(members))
        chosen = Chosen("average", plain, {"no_scores": str(error)})
    with tempfile.TemporaryDirectory() as folder:
        files = [
            _packed(path, Path(folder) / f"{index}{bundled.SUFFIX}", checkpoint)
            for index, path in enumerate(paths)
        ]
        _write(to, chosen, members, names, files, card)
    return report(chosen.facts, members[0].class_names)


def find_members(models: Sequence[str | Path]) -> list[Path]:
    """Paths of the models; a folder that is no run stands for the runs in it."""
    from feedseg.runs.directory import find_runs

    found = []
    for model in models:
        path = bundled.find(model)
        inside = path.is_dir() and not (path / "config.json").exists()
        found += find_runs([path]) if inside else [path]
    if twice := [path for path in found if found.count(path) > 1]:
        raise UserError(f"{twice[0]} is named twice")
    if len(found) < 2:
        raise UserError(f"{', '.join(map(str, models))}: an ensemble needs at least two models")
    return found


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names of models without folders, with them where they would be alike."""
    names = [path.name.removesuffix(bundled.SUFFIX) for path in paths]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]


def choose(
    members: Sequence[JaxPredictor], paths: Sequence[Path], names: Sequence[str], learn: bool
) -> Chosen:
    """Averaging, or learned weights where they pay, with the scores of everything."""
    val, test = common_parts(paths)
    classes = members[0].class_names
    rules = {**learning.member_rules(names), AVERAGED: learning.average(len(names))}
    facts, chosen, seen = {}, AVERAGED, answers(members, val)
    if learn:
        seen = np.stack(list(seen))
        learned = learning.learn(np.moveaxis(seen, 0, 1), val.labels, val.sources)
        rules[LEARNED] = ("awel", learned.weights)
        chosen = LEARNED if learned.pays else AVERAGED
        facts = {"weights": dict(zip(names, learned.weights.tolist(), strict=True))}
        facts["held_out"] = learned.held_out
    for part, items, found in (("validation", val, seen), ("test", test, answers(members, test))):
        counted = learning.matrices(found, items.labels, rules)
        rows = {name: metrics.summary(each, classes) for name, each in counted.items()}
        facts[part] = {"images": len(items.items), "scores": _with_mean(rows, names)}
    return Chosen(*rules[chosen], {"used": chosen, **facts, "gain": _gain(facts, names, chosen)})


def _with_mean(rows: dict[str, dict], names: Sequence[str]) -> dict[str, dict]:
    """The members, the mean of their scores, then the rest."""
    mean = {key: float(metrics.mean([rows[name][key] for name in names])) for key in rows[names[0]]}
    return {**{name: rows[name] for name in names}, MEMBERS_MEAN: mean, **rows}


def _gain(facts: Mapping, names: Sequence[str], chosen: str) -> dict[str, float]:
    """Mean IoU on the test images over that of others; the best member is that on validation."""
    validation, test = (facts[part]["scores"] for part in ("validation", "test"))
    best = max(names, key=lambda name: validation[name]["miou"])
    others = [best, MEMBERS_MEAN, *([AVERAGED] if chosen == LEARNED else [])]
    return {other: test[chosen]["miou"] - test[other]["miou"] for other in others}


def report(facts: Mapping, classes: Sequence[str]) -> str:
    """The `ensemble` entry of model.json as text."""
    if "no_scores" in facts:
        return f"no scores: {facts['no_scores']}"
    lines = []
    for part in ("validation", "test"):
        title = f"{part}, {facts[part]['images']} images"
        lines += [iou_table(title, facts[part]["scores"], classes), ""]
    if "weights" in facts:
        each = ", ".join(f"{name} {weight:.3f}" for name, weight in facts["weights"].items())
        lines += [f"weights of the members' logits: {each}", _verdict(facts)]
    over = (f"{percent(gain, sign='+')} over {name}" for name, gain in facts["gain"].items())
    lines.append(f"gain in mean IoU on the test images, {facts['used']}: {', '.join(over)}")
    scores, best = facts["validation"]["scores"], next(iter(facts["gain"]))
    if scores[best]["miou"] >= scores[facts["used"]]["miou"]:
        lines.append(f"{best} alone is as good on the validation images: better use that")
    return "\n".join(lines)


def _verdict(facts: Mapping) -> str:
    if not facts["held_out"]:
        return "one validation image: nothing to try the weights on, so the members are averaged"
    tried = "; ".join(f"{percent(a)} against {percent(b)}" for a, b in facts["held_out"])
    kept = facts["used"] == LEARNED
    return (
        f"learned on one half of the validation images, tried on the other: {tried} averaged; "
        + ("they are used" if kept else "no clear gain on both halves, so the members are averaged")
    )


def _packed(path: Path, to: Path, checkpoint: str) -> Path:
    """A member as a model file, which is made of a run."""
    if not model_file.is_package(path):
        return loading.export(path, to, {}, checkpoint=checkpoint)
    if model_file.read_manifest(path)["network"]["name"] == "ensemble":
        raise UserError(f"{path}: is an ensemble; name the models that it was made of")
    return path


def _write(
    to: Path,
    chosen: Chosen,
    members: Sequence[JaxPredictor],
    names: Sequence[str],
    files: Sequence[Path],
    card: dict,
) -> None:
    model = ensemble.together(members, names, chosen.rule, chosen.weights)
    inner = [model_file.read_manifest(file) for file in files]
    data = ", ".join(dict.fromkeys(each["data"] for each in inner))
    test = chosen.facts.get("test", {}).get("scores", {})
    described = model_file.manifest(
        {"name": "ensemble", "rule": chosen.rule, "members": list(names)},
        "float32",
        {**inner[0]["facts"], "name": data},
        card=card,
        scores={"final": test[chosen.facts["used"]]} if test else {},
    )
    image = loading.test_image(model)
    model_file.write(
        to,
        {**described, "ensemble": chosen.facts},
        {"params": {"weights": chosen.weights}},
        image,
        np.asarray(model.apply(image)),
        loading.proof(to),
        [file.read_bytes() for file in files],
    )
