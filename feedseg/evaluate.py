"""Evaluation of a split, pictures of it, and a trained model read back from its run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg import boundary_metrics, metrics, models, normalize
from feedseg import config as configs
from feedseg.checkpoint import read_tree
from feedseg.datasets.base import VOID, Dataset
from feedseg.errors import UserError
from feedseg.rundir import RunDir, read_json
from feedseg.step import Items, forward

Tree = Any


def confusion_matrices(
    eval_step: Callable, variables: Tree, items: Items, batch: int
) -> dict[str, np.ndarray]:
    """Confusion matrix of every image of a split for every output, int64 [N, K, K].

    The last batch is filled up with the first image; what it adds is dropped.
    """
    count = items.labels.shape[0]
    padded = np.zeros(-(-count // batch) * batch, np.int32)
    padded[:count] = np.arange(count)
    parts = [eval_step(variables, items, index) for index in padded.reshape(-1, batch)]
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])[:count].astype(np.int64)
        for name in parts[0]
    }


def summaries(matrices: dict[str, np.ndarray], class_names: tuple[str, ...]) -> dict[str, dict]:
    """Data-set scores of every output: one matrix over the whole split (A21)."""
    return {name: metrics.summary(m.sum(0), class_names) for name, m in matrices.items()}


class Trained(NamedTuple):
    """A model ready to be applied, with what it needs to know about images."""

    apply: Callable[[Any], jax.Array]  # image [N, H, W, C] in [0, 1] -> probabilities [N, H, W, K]
    outputs: Callable[[Any], tuple[jax.Array, dict]]  # image -> logits and extra outputs
    stride: int
    halo: int
    channels: int
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    normalization: str
    percentiles: tuple[float, float]


def load_run(run: Path, checkpoint: str = "best") -> Trained:
    """The model of a run directory.

    checkpoint: `best` (highest validation mean IoU) or `latest`.
    Raises UserError if the folder is no run, has no whole checkpoint, or the checkpoint is of
    another network.
    """
    directory = RunDir(run)
    config = configs.from_plain(read_json(directory.config))
    facts = read_json(directory.data)
    folders = {"best": directory.best, "latest": directory.checkpoints}
    if checkpoint not in folders:
        raise UserError(f"checkpoint {checkpoint!r}: choose best or latest")
    tree, _ = read_tree(folders[checkpoint])
    variables = {"params": tree["params"], "batch_stats": tree["batch_stats"]}
    model = models.build(len(facts["class_names"]), config.model)
    check_variables(model, variables, facts["channels"], folders[checkpoint])
    return bind(model, variables, config.train.compute_dtype, facts)


def check_variables(model, variables: Tree, channels: int, where: Path) -> None:
    """Raises UserError unless the variables have the network's names and shapes."""
    image = jnp.zeros((1, model.stride * 2, model.stride * 2, channels))
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))

    def shapes(tree):
        flat = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in flat}

    have, want = shapes(variables), shapes({"batch_stats": {}, **wanted})
    for key in sorted(set(have) | set(want)):
        if have.get(key) != want.get(key):
            raise UserError(
                f"{where}: checkpoint of another network: {key} has shape {have.get(key)}, "
                f"the config's network {want.get(key)}"
            )


def bind(model, variables: Tree, dtype: str, facts: dict) -> Trained:
    """A trained model from its parts; facts: as in data.json."""
    variables = jax.device_put(variables)
    run = jax.jit(lambda v, image: forward(model, v, image, jnp.dtype(dtype)))
    soft = jax.jit(
        lambda v, image: jax.nn.softmax(
            forward(model, v, image, jnp.dtype(dtype))[0].astype(jnp.float32)
        )
    )
    return Trained(
        apply=lambda image: soft(variables, image),
        outputs=lambda image: run(variables, image),
        stride=model.stride,
        halo=model.halo,
        channels=facts["channels"],
        class_names=tuple(facts["class_names"]),
        class_colors=tuple(tuple(color) for color in facts["class_colors"]),
        normalization=facts["normalization"],
        percentiles=tuple(facts["percentiles"]),
    )


def panel_rows(trained: Trained, dataset: Dataset, chosen: np.ndarray) -> list[dict]:
    """Pictures of some items by name: input, truth, everything the network shows, final.

    Entries of the network's `out` that hold logits become label maps, others images.
    """
    image = normalize.apply(dataset.images[chosen], dataset.low[chosen], dataset.high[chosen])
    logits, out = jax.tree.map(np.asarray, trained.outputs(image))
    rows = []
    for n, item in enumerate(chosen):
        row = {"input": np.squeeze(image[n], -1) if image.shape[-1] == 1 else image[n]}
        row["truth"] = dataset.labels[item].astype(np.int32)
        row |= _pictures(out, n)
        row["final"] = logits[n].argmax(-1).astype(np.int32)
        rows.append(row)
    return rows


def _pictures(out: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Named pictures of item `n` from a network's extra outputs, at most 3 of a kind."""
    row = {}
    if "first" in out:
        row["network 1"] = out["first"][n].argmax(-1).astype(np.int32)
    if "filters" in out:
        for i in range(min(3, out["filters"].shape[-1])):
            row[f"filter {i + 1}"] = out["filters"][n, ..., i].astype(np.float32)
    if "translated" in out:
        for i, image in enumerate(out["translated"][:3]):
            shown = image[n].astype(np.float32)
            row[f"translated {i + 1}"] = shown[..., 0] if shown.shape[-1] == 1 else shown
    for name, title in (("members", "member"), ("rounds", "round")):
        first = 1 if name == "members" and "first" in out else 0  # network 1 is shown already
        for i, member in enumerate(out.get(name, [])[first : first + 3]):
            row[f"{title} {i + 1}"] = member[n].argmax(-1).astype(np.int32)
    return row


def check_membrane(dataset: Dataset, membrane: str) -> None:
    """Raises UserError unless the name is empty or that of a class."""
    if membrane and membrane not in dataset.class_names:
        names = ", ".join(dataset.class_names)
        raise UserError(f"evaluate.membrane={membrane!r}: the classes are {names}")


def boundary_scores(trained: Trained, dataset: Dataset, chosen: np.ndarray, membrane: str) -> dict:
    """Rand and information scores of the membrane class over the chosen items, crop by crop.

    Adapted Rand error and variation of information at probability 0.5, and the ISBI 2012 scores
    over a sweep of thresholds. membrane: name of a class.
    """
    index = dataset.class_names.index(membrane)
    probability = np.concatenate([_probability(trained, dataset, i)[..., index] for i in chosen])
    labels = dataset.labels[chosen]
    truth, valid = labels == index, labels != VOID
    return boundary_metrics.isbi2012(probability, truth, valid=valid) | _segment_scores(
        probability > 0.5, truth, valid
    )


def _probability(trained: Trained, dataset: Dataset, item: int) -> np.ndarray:
    image = normalize.apply(dataset.images[item], dataset.low[item], dataset.high[item])
    return np.asarray(trained.apply(image.reshape(1, *dataset.images.shape[1:])))


def _segment_scores(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict:
    """Adapted Rand error and variation of information (bits), means over the images."""
    rand, splits, merges = [], [], []
    for p, t, v in zip(predicted, truth, valid, strict=True):
        true_segments = boundary_metrics.segments(~t & v)
        found = boundary_metrics.segments(~p & v)
        rand.append(boundary_metrics.adapted_rand(true_segments, found))
        split, merge = boundary_metrics.variation_of_information(true_segments, found)
        splits.append(split)
        merges.append(merge)
    return {
        "adapted_rand_error": float(metrics.mean(np.asarray(rand))),
        "vi_split_bits": float(metrics.mean(np.asarray(splits))),
        "vi_merge_bits": float(metrics.mean(np.asarray(merges))),
    }
