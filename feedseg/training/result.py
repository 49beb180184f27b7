"""The end of a run: scores of the best checkpoint, figures, and result.json at the very end."""

import platform

import jax
import numpy as np

import feedseg
from feedseg.evaluation import figures, metrics, test_split
from feedseg.evaluation.tables import console_table
from feedseg.inference.trained import JaxPredictor, make_predictor
from feedseg.runs import config as configs
from feedseg.runs import directory
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runtime import files, mesh, processes
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.training.setup import Setup, place_items


def finish(job: Setup, state, meta: dict, best: Checkpoints) -> dict:
    """Scores of the best checkpoint on the test part, figures, and result.json at the very end."""
    whole = mesh.replicated(job.mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state.variables()
    )
    found = best.restore_latest(abstract)
    if not found:
        raise UserError(
            f"{best.folder}: the best checkpoint is gone; delete the run and start again"
        )
    step, variables, notes = found
    job.log(f"evaluating the best checkpoint (epoch {notes['epoch']}) on the test images")
    names = job.dataset.class_names
    facts = directory.describe(job.dataset, job.config)
    trained = make_predictor(job.model, variables, job.config.train.compute_dtype, facts)
    items = place_items(job.mesh, job.dataset, job.split.test)
    matrices = test_split.confusion_matrices(job.eval_step, variables, items, job.eval_batch)
    if job.config.evaluate.dihedral:
        matrices["dihedral"] = test_split.dihedral_matrices(
            trained, job.dataset, job.split.test, job.eval_batch
        )
    if job.config.evaluate.rotations:
        matrices["rotations"] = test_split.rotation_matrices(
            trained, job.dataset, job.split.test, job.config.evaluate.rotations
        )
    result = {
        "complete": True,
        "experiment": job.config.experiment,
        "run_name": job.config.run_name,
        "class_names": list(names),
        "metrics": test_split.summaries(matrices, names),
        "per_image": metrics.per_image(matrices["final"], names),
        "image_scores": metrics.image_scores(matrices["final"]),
        "confusion": matrices["final"].sum(0).tolist(),
        "best": {"step": step, "epoch": notes["epoch"], "val_miou": notes["val/miou"]},
        "counts": {part: len(index) for part, index in job.split._asdict().items()},
        "parameters": job.parameters,
        **provenance(job, meta, facts["fingerprint"]),
    }
    if job.config.evaluate.membrane:
        result["boundary"] = test_split.boundary_scores(
            trained, job.dataset, job.split.test, job.config.evaluate.membrane
        )
    if "mask" in job.dataset.maps:
        result["mask"] = test_split.mask_scores(trained, job.dataset, job.split.test)
    if processes.is_first():
        draw(job, trained, matrices["final"].sum(0))
    files.write_json_atomic(job.directory.result, result)
    return result


def provenance(job: Setup, meta: dict, data_hash: str) -> dict:
    """Where the numbers come from."""
    plain = configs.to_plain(job.config)
    return {
        "config_hash": configs.config_hash(plain),
        "data_hash": data_hash,
        "seed": job.config.seed,
        "version": feedseg.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": mesh.describe(job.mesh),
        "seconds": round(meta["seconds"], 1),  # of all runs of its program
        "together": meta["together"],
    }


def draw(job: Setup, trained: JaxPredictor, matrix: np.ndarray) -> None:
    """Curves, confusion matrix and a panel of up to four test images."""
    path, dataset = job.directory.path, job.dataset
    figures.curves(job.directory.rows(), path / "curves.png")
    figures.confusion_figure(matrix, dataset.class_names, path / "confusion.png")
    rows = test_split.panel_rows(trained, dataset, test_split.evenly(job.split.test, 4))
    figures.panel(rows, path / "panel.png", dataset.class_names, dataset.class_colors)


def show(result: dict, log: Log) -> None:
    """The result as a table."""
    counts = result["counts"]
    log(
        f"test: {counts['test']} images, best of {result['best']['epoch']} epochs by validation "
        f"mean IoU ({100 * result['best']['val_miou']:.2f})"
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
