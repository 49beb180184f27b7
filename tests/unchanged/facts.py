"""Facts about the package that a change of its arrangement must not change, as plain JSON."""

import hashlib
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from skimage.filters import gaussian

import feedseg
from configs import common
from feedseg import cli, models
from feedseg.experiments import published, reproduce
from feedseg.runs import config as configs
from feedseg.runs.checkpoint import read_tree
from feedseg.runtime.logs import Log
from feedseg.training import train
from tests.support import tiny

# The smallest forms of the networks that share the least code.
TRAININGS = {
    "unet": ("unet", dict(filters=(4, 8))),
    "ru_net": ("ru_net", dict(filters=(4, 8))),
    "feedback_unet": ("feedback_unet", dict(filters=(4, 8, 8), layout="b", rounds=2)),
    "feedback_attention": ("feedback_attention", dict(filters=(4, 8))),
    "aep": ("aep", {}),
}
CONFIGS = {
    "unet": ("", "dataset=sstem", "dataset=folder"),
    "unet_original": ("", "width=8"),
    "aep_irpe": ("", "dataset=synthetic"),
    "aep": ("", "dataset=isbi2012,degrade=noise,fold=1", "model=net2", "recipe=modern"),
    "baseline": ("", "model=ru_net,recipe=paper", "model=unet_plus_plus,protocol=aep,recipe=aep"),
    "blood_cell": ("",),
    "feedback_unet": ("", "layout=abde", "unit=rcl_shared,recipe=paper"),
    "feedback_attention": ("", "connection=self", "connection=source_target,location=one_conv"),
}


def config_hashes() -> dict[str, str]:
    """The hash of every configuration with some arguments."""
    hashes = {}
    for name, arguments in CONFIGS.items():
        module = importlib.import_module(f"configs.{name}")
        for argument in arguments:
            config = module.get_config(argument or None)
            hashes[f"{name}:{argument}"] = configs.config_hash(configs.to_plain(config))
    return hashes


def planned_runs() -> dict[str, list]:
    """Number of runs and a digest of their command lines, for every published table."""
    facts = {}
    for name in published.names():
        cells = reproduce.plan(published.table(name), reproduce.Choice(), Path("runs"))
        lines = [[*trial.arguments()] for cell in cells for trial in cell.trials]
        digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()
        facts[name] = [len(lines), digest]
    return facts


def parameter_trees() -> dict[str, list]:
    """Number of arrays, and a digest of their paths and shapes, of every network as configured."""
    return {name: _tree(models.build(3, common.model(name))) for name in models.names()}


def _tree(model) -> list:
    side = model.stride * (2 if model.stride > 1 else 16)
    image = jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
    key = jax.random.key(0)
    tree = jax.eval_shape(
        lambda x: model.init({"params": key, "dropout": key}, x, train=False), image
    )
    shapes = sorted(f"{jax.tree_util.keystr(path)} {leaf.shape}" for path, leaf in _leaves(tree))
    return [len(shapes), hashlib.sha256("\n".join(shapes).encode()).hexdigest()]


def _leaves(tree) -> list:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def command_options() -> dict[str, list]:
    """The options of every verb of `feedseg`, without their help."""
    (verbs,) = cli.parser()._subparsers._group_actions
    return {
        verb: [
            [
                *(*action.option_strings, action.dest, action.nargs, action.required),
                *(str(action.default), action.choices and list(map(str, action.choices))),
                action.metavar,
            ]
            for action in parser._actions
        ]
        for verb, parser in verbs.choices.items()
    }


def fractions_of_bundled_models() -> dict[str, list[float]]:
    """Fraction of each class that the bundled models find in a drawn image."""
    noise = np.random.default_rng(0).normal(size=(192, 192))
    smooth = sum(gaussian(noise, sigma) / gaussian(noise, sigma).std() for sigma in (2, 4, 8))
    gray = np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)
    facts = {}
    for name in ("isbi2012", "nuclei", "sstem", "wbc"):
        image = np.stack([gray, gray.T, gray[::-1]], -1) if name == "wbc" else gray
        labels = feedseg.load(name).predict(image).labels
        counts = np.bincount(labels.ravel(), minlength=4)
        facts[name] = (counts / labels.size).round(5).tolist()
    return facts


def training(name: str, folder: Path) -> dict:
    """Losses and parameters after the epochs of a small network.

    With SGD, as Adam's first steps turn the rounding of a gradient near 0 into steps of full
    length, and four images a batch, as two leave channels whose variance is rounding.
    """
    network, changes = TRAININGS[name]
    config = tiny.get_config(train__epochs=1, train__batch_size=4)
    config.optimizer.update(name="sgd", learning_rate=0.1)
    config.model = ConfigDict(common.model(network, **changes))
    train.run(config, folder, Log())
    return summary(folder)


def summary(workdir: Path) -> dict:
    """Losses of the epochs, mean and standard deviation of every parameter."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    tree, _ = read_tree(workdir / "checkpoints")
    parameters = {
        jax.tree_util.keystr(path): [float(np.mean(leaf)), float(np.std(leaf))]
        for path, leaf in _leaves(tree["params"])
    }
    return {"losses": [row["loss"] for row in rows], "parameters": parameters}
