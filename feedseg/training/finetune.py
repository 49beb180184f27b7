"""Beginning with the weights of a trained model instead of random numbers.

Layers are matched by name, classes by theirs. The weights of a class that the model does not know
stay random, as does every layer that it lacks. Of a first layer for another number of channels the
mean over the model's channels is taken,

    w'[c] = C / C' mean_c w[c],

so that a gray image gives what it gave, for C channels of the model and C' of the images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from feedseg.inference import loading, weights
from feedseg.inference.trained import ModelParts
from feedseg.runs.checkpoint_format import nest, to_host
from feedseg.runtime.errors import UserError


class Start(NamedTuple):
    """Variables to begin with, and a line on what they were taken from."""

    variables: dict
    said: str


def start(where: str, variables: Mapping, settings: Mapping, facts: Mapping) -> Start:
    """The network's variables with what a trained model has of them.

    where: a run, a model file or a name of `feedseg models`; variables: the network's own, random;
    settings: `config.model`; facts: `class_names`, `channels` and `size_px` of its data.
    Raises UserError if there is no such model, or it has nothing that fits.
    """
    parts = loading.parts(where)
    own, theirs = to_host(variables), to_host(parts.variables)
    axes = class_axes(settings, facts)
    taken, fresh = {}, []
    for name, mine in own.items():
        known = theirs.get(name)
        if name in axes and facts["class_names"] != parts.facts["class_names"]:
            found = _by_class(mine, known, axes[name], parts.facts, facts)
        else:
            found = _fitting(name, mine, known, parts.facts["channels"], facts["channels"])
        if found is None:
            fresh.append(name)
        else:
            taken[name] = found.astype(mine.dtype)
    if not taken:
        raise UserError(
            f"train.start={where}: its network, {parts.settings['name']}, has no layer of "
            f"{settings['name']}; choose the same network"
        )
    return Start(nest({**own, **taken}), _said(where, parts, facts, len(taken), fresh))


def class_axes(settings: Mapping, facts: Mapping) -> dict[str, int | None]:
    """The axis of each array on which every class has an entry; None where the classes are among
    others or on several axes. Arrays that do not depend on the classes are left out.
    """
    names = list(facts["class_names"])
    now, more = (
        weights.shapes(settings, {**facts, "class_names": each}, "config.model")
        for each in (names, [*names, "one more"])
    )
    found = {}
    for name, shape in now.items():
        axes = [axis for axis, size in enumerate(shape) if size != more[name][axis]]
        if axes:
            alone = len(axes) == 1 and shape[axes[0]] == len(names)
            found[name] = axes[0] if alone else None
    return found


def _fitting(
    name: str, mine: np.ndarray, theirs: np.ndarray | None, had: int, has: int
) -> np.ndarray | None:
    """What takes the place of an array; None: it stays. had, has: channels of the images."""
    if theirs is None or theirs.shape == mine.shape:
        return theirs
    first = name.endswith("kernel") and theirs.shape == (*mine.shape[:-2], had, mine.shape[-1])
    if not first or mine.shape[-2] != has:
        return None
    return np.broadcast_to(theirs.mean(-2, keepdims=True) * had / has, mine.shape)


def _by_class(
    mine: np.ndarray, theirs: np.ndarray | None, axis: int | None, had: Mapping, has: Mapping
) -> np.ndarray | None:
    """The array with the entries of the classes that both know; None: it stays."""
    known, wanted = list(had["class_names"]), list(has["class_names"])
    shared = [name for name in wanted if name in known]
    if theirs is None or axis is None or not shared:
        return None
    if theirs.shape != (*mine.shape[:axis], len(known), *mine.shape[axis + 1 :]):
        return None
    merged = np.moveaxis(mine.copy(), axis, 0)
    for name in shared:
        merged[wanted.index(name)] = np.moveaxis(theirs, axis, 0)[known.index(name)]
    return np.moveaxis(merged, 0, axis)


def _said(where: str, parts: ModelParts, facts: Mapping, taken: int, fresh: Sequence[str]) -> str:
    wanted, known = facts["class_names"], parts.facts["class_names"]
    new = [name for name in wanted if name not in known]
    said = f"begins with {where}: {taken} of {taken + len(fresh)} arrays are taken from it"
    said += f"; new classes: {', '.join(new)}" if new else ""
    if parts.facts["channels"] != facts["channels"]:
        said += f"; first layer: {parts.facts['channels']} channels become {facts['channels']}"
    return said
