"""Comparison of several folders of predictions of the same images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.evaluation import boundary_f
from feedseg.evaluation.folders import names_given, score_folders
from feedseg.evaluation.score_files import write_scores
from feedseg.evaluation.score_text import comparison_text
from feedseg.io.reading import ReadOptions
from feedseg.runtime import console
from feedseg.runtime.errors import UserError


def compare_folders(
    preds: Sequence[Path],
    truth: Path,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    membrane: str | int | None = None,
    tolerance: float = boundary_f.TOLERANCE,
    interpret: str = "auto",
    fill_missing: bool = False,
    output: Path | None = None,
) -> dict[str, dict]:
    """Score several folders against one truth; print a line per folder and its gain.

    Arguments as in `folders.evaluate_folders`. The gain is the mean IoU of the data set over the
    first folder's; `better on` counts the images with a higher mean IoU.
    output: folder for `comparison.csv` (a line per folder), `scores.csv` (a line per folder and
    image) and `scores.json`.
    Returns the scores by the folder's name. Raises UserError as `evaluate_folders` does, and if a
    folder is named twice.
    """
    paths = [Path(pred) for pred in preds]
    names = _short_names(paths)
    given = names_given(num_classes, class_names)
    how = ReadOptions(interpret=interpret, fill_missing=fill_missing).checked()
    scores = score_folders(paths, Path(truth), given, membrane, tolerance, how)
    results = dict(zip(names, scores, strict=True))
    compared = [_against(scores[0], result) for result in scores]
    console.say(comparison_text(results, compared))
    if output is not None:
        _write(Path(output), results, compared)
    return results


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of every path; the whole path where two would be equal."""
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"{twice[0]}: named twice")
    last = [path.name for path in paths]
    return [n if last.count(n) == 1 else str(p) for n, p in zip(last, paths, strict=True)]


def _against(first: Mapping, result: Mapping) -> dict:
    """Gain of a result over the first, and the images where it is better."""
    pairs = zip(result["images"], first["images"], strict=True)
    return {
        "gain": result["dataset"]["miou"] - first["dataset"]["miou"],
        "better_on": sum(ours["miou"] > theirs["miou"] for ours, theirs in pairs),
    }


def _write(folder: Path, results: Mapping[str, Mapping], compared: Sequence[Mapping]) -> None:
    rows = [
        {"predictions": name, **row} for name, result in results.items() for row in result["images"]
    ]
    lines = [
        {"predictions": name, **against, **r["dataset"], **r["contours"], **r["boundary"]}
        for (name, r), against in zip(results.items(), compared, strict=True)
    ]
    write_scores(folder, {"comparison.csv": lines, "scores.csv": rows}, results)
