"""A trained model, read back from its run and ready to be applied."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg import config as configs
from feedseg import models
from feedseg.checkpoint import read_tree
from feedseg.errors import UserError
from feedseg.rundir import RunDir, read_json
from feedseg.step import forward

Tree = Any


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


def dihedral_mean(trained: Trained) -> Trained:
    """The same model with its probabilities averaged over 8 rotations and mirrors of the image.

        p(x) = 1/8 sum_g g^-1 q(g x)

    over the elements g of the dihedral group, q being the model's own probabilities.
    """

    def apply(image):
        total = 0.0
        for mirrored in (False, True):
            for turns in range(4):
                seen = jnp.rot90(image[:, :, ::-1] if mirrored else image, turns, axes=(1, 2))
                back = jnp.rot90(trained.apply(seen), -turns, axes=(1, 2))
                total += back[:, :, ::-1] if mirrored else back
        return total / 8

    return trained._replace(apply=apply)
