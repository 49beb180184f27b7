"""The end of a run: the test scores of its best epoch in result.json, then the figures."""

import platform

import jax
import numpy as np

import feedseg
from feedseg.datasets.common.facts import describe
from feedseg.evaluation import figures, metrics, test_split
from feedseg.evaluation.panel import panel
from feedseg.evaluation.tables import console_table
from feedseg.inference.trained import JaxPredictor, make_predictor
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runtime import files, mesh, processes
from feedseg.runtime.errors import one_line
from feedseg.runtime.logs import Log
from feedseg.training import validate
from feedseg.training.run import rescue_best
from feedseg.training.setup import Setup, place_items

FIGURES = ("curves.png", "confusion.png", "panel.png")


def finish(setup: Setup, state, meta: dict, best: Checkpoints) -> dict:
    """Test the best checkpoint and write result.json; the figures come after it.

    best: where none is whole the last state takes its place. Raises SaveFailed if the directory is
    gone in the end, and the result with it.
    """
    meta = rescue_best(setup, state, meta, best)
    whole = best.restore_latest(mesh.abstract(setup.mesh, state.variables()))
    if not whole:  # it was a moment ago
        raise setup.directory.gone()
    step, variables, notes = whole
    setup.log(f"evaluating the best checkpoint (epoch {notes['epoch']}) on the test images")
    facts = describe(setup.dataset, setup.config.data)
    predictor = make_predictor(setup.model, variables, setup.config.train.compute_dtype, facts)
    matrices = test_matrices(setup, variables, predictor)
    result = {
        "complete": True,
        "experiment": setup.config.experiment,
        "run_name": setup.config.run_name,
        **scores(setup, predictor, matrices),
        "best": {"step": step, "epoch": notes["epoch"], "val_miou": notes["val/miou"]},
        "counts": {part: len(index) for part, index in setup.split._asdict().items()},
        "parameters": setup.parameters,
        **provenance(setup, meta),
    }
    files.write_sealed(setup.directory.result, result)
    if processes.is_first():
        try:
            draw(setup, predictor, matrices["final"].sum(0))
        except Exception as error:  # decoration: the result above is whole without it
            kind = type(error).__name__
            setup.log(f"warning: not all figures could be drawn ({kind}: {one_line(error)})")
    setup.directory.require_there()
    return result


def test_matrices(setup: Setup, variables, predictor: JaxPredictor) -> dict[str, np.ndarray]:
    """Confusion matrices [N, K, K] of the test images by output, with those averaged over views."""
    dataset, test, _ = setup.test
    evaluate, batch = setup.config.evaluate, setup.plan.eval_batch
    items = place_items(setup.mesh, setup.test)
    matrices = validate.confusion_matrices(setup.eval_step, variables, items, batch)
    if evaluate.dihedral:
        matrices["dihedral"] = test_split.dihedral_matrices(predictor, dataset, test, batch)
    if evaluate.rotations:
        matrices["rotations"] = test_split.rotation_matrices(
            predictor, dataset, test, evaluate.rotations
        )
    return {name: setup.test.by_image(each) for name, each in matrices.items()}


def scores(setup: Setup, predictor: JaxPredictor, matrices: dict[str, np.ndarray]) -> dict:
    """All scores of the test images, as result.json holds them."""
    dataset, test, _ = setup.test
    names = dataset.class_names
    entries = {
        "class_names": list(names),
        "metrics": validate.summaries(matrices, names),
        "per_image": metrics.per_image(matrices["final"], names),
        "image_scores": metrics.image_scores(matrices["final"]),
        "confusion": matrices["final"].sum(0).tolist(),
    }
    if membrane := setup.config.evaluate.membrane:
        entries["boundary"] = test_split.boundary_scores(predictor, dataset, test, membrane)
    if "mask" in dataset.maps:
        entries["mask"] = test_split.mask_scores(predictor, dataset, test)
    return entries


def provenance(setup: Setup, meta: dict) -> dict:
    """Where the numbers come from.

    Only of such runs: `stopped`, the epoch and the reason of an early end, and `went_on_from`,
    the epochs of the shorter runs that this one goes on from.
    """
    return {
        **setup.directory.identity(),
        "log_hash": setup.directory.log_hash(),
        "seed": setup.config.seed,
        "version": feedseg.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": mesh.describe(setup.mesh),
        "seconds": round(meta["seconds"], 1),  # of all runs of its program
        "together": meta["together"],
        **{key: meta[key] for key in ("stopped", "went_on_from") if meta[key]},
    }


def draw(setup: Setup, predictor: JaxPredictor, matrix: np.ndarray) -> None:
    """Curves, confusion matrix and a panel of up to four test images."""
    path, (dataset, test, _) = setup.directory.path, setup.test
    curves, confusion, pictures = map(path.joinpath, FIGURES)
    figures.curves(setup.directory.rows(), curves)
    figures.confusion_figure(matrix, dataset.class_names, confusion)
    rows = test_split.panel_rows(predictor, dataset, test_split.evenly(test, 4))
    panel(rows, pictures, dataset.class_names, dataset.class_colors)


def _percent(value: float | None) -> str:
    return "unknown" if value is None or np.isnan(value) else f"{100 * value:.2f}"


def show(result: dict, log: Log) -> None:
    """The result as a table."""
    counts = result["counts"]
    log(
        f"test: {counts['test']} images, variables of epoch {result['best']['epoch']}, the best by "
        f"validation mean IoU ({_percent(result['best']['val_miou'])})"
    )
    log(console_table(result["metrics"]["final"], result["class_names"]))
    averaged = {
        "dihedral": "8 rotations and mirrors",
        "rotations": "rotations by equal angles",
    }
    for name, over in averaged.items():
        if name in result["metrics"]:
            log(f"the same, probabilities averaged over {over}")
            log(console_table(result["metrics"][name], result["class_names"]))
    others = [name for name in result["metrics"] if name not in ("final", *averaged)]
    for name in others:  # rounds, members, network 1
        log(f"  {name:24s} mean IoU {100 * result['metrics'][name]['miou']:.2f}")
    further = result.get("boundary", {}) | {
        f"grey mask: {name}": value for name, value in result.get("mask", {}).items()
    }
    for name, value in further.items():
        log(f"  {name:24s} " + ("-" if value is None or np.isnan(value) else f"{value:.4f}"))
