"""Validation: confusion matrices of a split, and the epoch's row and line in the logs."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from feedseg.evaluation import metrics
from feedseg.runtime.rounding import round_up
from feedseg.training.setup import Setup
from feedseg.training.step import Items, TrainState


def confusion_matrices(
    eval_step: Callable, variables: Any, items: Items, batch: int
) -> dict[str, np.ndarray]:
    """Confusion matrix of every image of a split for every output, int64 [N, K, K].

    The last batch is filled up with the first image; what it adds is dropped.
    """
    count = items.labels.shape[0]
    padded = np.zeros(round_up(count, batch), np.int32)
    padded[:count] = np.arange(count)
    parts = [eval_step(variables, items, index) for index in padded.reshape(-1, batch)]
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])[:count].astype(np.int64)
        for name in parts[0]
    }


def summaries(matrices: dict[str, np.ndarray], class_names: tuple[str, ...]) -> dict[str, dict]:
    """Scores of every output from one confusion matrix over the whole split."""
    return {name: metrics.summary(m.sum(0), class_names) for name, m in matrices.items()}


def epoch_row(setup: Setup, state: TrainState, step: int) -> dict:
    """The epoch's row for metrics.jsonl: mean losses, validation scores, learning rate."""
    plan = setup.plan
    totals = jax.device_get(state.totals)
    totals.pop("bad_step")
    means = {
        name if name == "loss" else f"loss/{name}": float(value) / plan.per_epoch
        for name, value in totals.items()
    }
    matrices = confusion_matrices(
        setup.eval_step, state.variables(), setup.val_items, plan.eval_batch
    )
    scores = summaries(matrices, setup.dataset.class_names)
    row = {"epoch": step // plan.per_epoch, "step": step, "lr": float(setup.schedule(step - 1))}
    row |= means
    row |= {f"val/{key}": value for key, value in scores.pop("final").items()}
    return row | {f"val/{name}/miou": each["miou"] for name, each in scores.items()}


def speed(setup: Setup, seconds: float) -> float:
    """Training images per second of an epoch that took so long without its validation."""
    return setup.plan.per_epoch * setup.plan.batch / seconds


def epoch_line(setup: Setup, row: dict, seconds: float) -> str:
    """The epoch in one line, with speed and time left."""
    epochs = setup.config.train.epochs
    left = (epochs - row["epoch"]) * seconds
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  "
        f"val mIoU {100 * row['val/miou']:.2f}  {speed(setup, seconds):.1f} images/s  "
        f"{left / 60:.1f} min left"
    )
