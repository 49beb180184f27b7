"""Odd names of files, classes and runs through predict, check, evaluate and report."""

import json
import shutil

import numpy as np
import tifffile

from tests.campaign import materials, pictures, reading, tasks
from tests.campaign.outcome import refused, wrong
from tests.campaign.runs import rename

ALPHABETS = ("abc", "é\u0301ßﬁİ", "日本語", "\u202e\u200b\ufeff", "🧬🔬", "\t\n\r\x1b\x07")
ALPHABETS += ("[]*?{}!", "'\"`$\\%;&|", "<>&", "=+-@,", "~#:^_", " .", "\udce9\udcff")
WHOLE = ("-x", "--help", "<img src=x onerror=alert(1)>", "=1+1", "$x_1$", "a" * 200, "con", "a..")


def name(rng) -> str:
    """One that a file may have, but not a hidden one."""
    if rng.random() < 0.3:
        return rng.choice(WHOLE)
    letters = "".join(rng.sample(ALPHABETS, 2)) + "x"
    found = "".join(rng.choice(letters) for _ in range(rng.randint(1, 12)))
    return "x" + found if found.startswith(".") else found


def attempt(rng, folder):
    return rng.choice((_predict, _check, _evaluate, _report))(rng, folder)


def _named(rng, folder, *kinds):
    """Three images in each of these folders, by the same odd names."""
    found = [f"{name(rng)}{k}{rng.choice(('.tif', '.png'))}" for k in range(3)]
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for each in found:
            pictures.labels(rng, folder / kind / each, side=32)
    return found


def _predict(rng, folder):
    names, out = _named(rng, folder, "in"), folder / "out"
    given = ["predict", "--model", materials.BUNDLED, "--input", folder / "in", "--output", out]
    did = f"predict {names}"
    outcome, end = reading.command([*given, "--overlay", "--tables"], did, lines=4)
    if outcome.kind != "survived":
        return outcome
    written = list(out.glob("*_labels.tif"))
    if len(written) != len(names):
        return wrong(f"{did}: {len(written)} label images of {len(names)}: {end['err'][-200:]}")
    if any(tifffile.imread(path).shape != (32, 32) for path in written):
        return wrong(f"{did}: label images of another size")
    return outcome


def _check(rng, folder):
    names, classes = _named(rng, folder / "data", "images", "labels"), [name(rng) for _ in "abc"]
    labels = {"labels": {each: k for k, each in enumerate(classes)}}
    (folder / "data" / "dataset.json").write_text(json.dumps(labels))
    given = ["check", folder / "data", "--output", folder / "out"]
    outcome, end = reading.command(given, f"check {names} of classes {classes}")
    found_wrong = end.get("code") == 1  # of the data, and said so
    return refused(outcome.text) if found_wrong else outcome


def _evaluate(rng, folder):
    names, classes = _named(rng, folder, "pred"), ",".join(name(rng) for _ in "abc")
    shutil.copytree(folder / "pred", folder / "truth")
    given = ["evaluate", "--pred", folder / "pred", "--truth", folder / "truth"]
    given += [f"--classes={classes}", "--output", folder / "scores"]
    did = f"evaluate {names} of classes {classes!r}"
    outcome, _ = reading.command(given, did)
    if outcome.kind == "survived":
        scores = json.loads((folder / "scores" / "scores.json").read_text("utf-8"))
        if not np.isclose(_first(scores, "miou"), 1):
            return wrong(f"{did}: the score of equal images is {_first(scores, 'miou')}")
    return outcome


def _first(tree, key):
    """The first value of a key in nested dicts and lists."""
    for inner, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if inner == key:
            return value
        if isinstance(value, dict | list) and (found := _first(value, key)) is not None:
            return found
    return None


def _report(rng, folder):
    """Of two runs, one of them renamed in its folder and in its files."""
    odd = name(rng)
    shutil.copytree(tasks.run(), folder / "plain")
    run = shutil.copytree(tasks.run(), folder / odd)
    rename(run, experiment=odd, run_name=odd)
    did = f"report of a run {odd!r}"
    outcome, _ = reading.command(["report", folder / "plain", run, "--output", folder / "out"], did)
    if outcome.kind == "survived":
        page = (folder / "out" / "index.html").read_text("utf-8")
        if "<" in odd and odd in page:
            return wrong(f"{did}: index.html holds the name as markup")
    return outcome
