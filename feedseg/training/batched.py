"""Several runs as one program: which runs can be one, and how they lie in it.

These networks are small: a program of several runs keeps a device busy where one run does not.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from feedseg.runs import config as configs
from feedseg.runtime import mesh, xla
from feedseg.training.run import TrainingRun
from feedseg.training.setup import Setup

Tree = Any
_STEP_KEYS = ("augment", "loss", "model", "optimizer", "train", "runtime")  # what a step is made of


def _copies(step: Callable) -> Callable:
    def steps(states, items):
        pairs = [step(*each) for each in zip(states, items, strict=True)]
        return tuple(state for state, _ in pairs), tuple(loss for _, loss in pairs)

    return steps


def _stack(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _unstack(tree: Tree, count: int) -> list[Tree]:
    return [jax.tree.map(lambda x, k=k: x[k], tree) for k in range(count)]


class Form(NamedTuple):
    """How runs lie in a program. join: from a step, one of packed states and items."""

    join: Callable[[Callable], Callable]
    pack: Callable[[Sequence[Tree]], Tree]
    unpack: Callable[[Tree, int], list[Tree]]


FORMS = {
    "copies": Form(_copies, tuple, lambda packed, _: list(packed)),
    "vmap": Form(jax.vmap, _stack, _unstack),
}


class Program:
    """The training steps of some runs on one device, or of one run on all devices of its mesh.

    All runs are at the same step, and `kind` is the same for all. `runtime.together` says how:
    `copies` of the step, one for each run; or `vmap`, one step over stacked states and data, in
    which a convolution becomes one with a group of channels for every run.
    """

    def __init__(self, setups: Sequence[Setup], states: Sequence[Tree]):
        first, self._count = setups[0], len(setups)
        self._form = FORMS[first.config.runtime.together if self._count > 1 else "copies"]
        self._step = mesh.compile_train(
            first.mesh, self._form.join(first.step), xla.options(first.parameters)
        )
        self._states = self._form.pack(states)
        self._items = self._form.pack([setup.train_items for setup in setups])
        self._losses: deque = deque()

    def dispatch(self) -> None:
        """Start the next steps; their losses wait on the device."""
        self._states, losses = self._step(self._states, self._items)
        self._losses.append(losses)

    def losses(self, waiting: int) -> list[list[float]]:
        """Losses of all runs, for every dispatch but the newest `waiting`; blocks for them."""
        rows = []
        while len(self._losses) > waiting:
            rows.append(np.asarray(self._losses.popleft()).tolist())
        return rows

    def states(self) -> list[Tree]:
        """The runs' present states; not to be used after the next dispatch."""
        return self._form.unpack(self._states, self._count)


class BatchedStep:
    """The training step of a group of runs: one program on each device that holds some of them.

    Notes in each run how many share its program.
    """

    def __init__(self, runs: Sequence[TrainingRun]):
        by_mesh: dict[Any, list[int]] = {}
        for number, run in enumerate(runs):
            by_mesh.setdefault(run.setup.mesh, []).append(number)
        self._programs = []
        for own in by_mesh.values():
            for number in own:
                runs[number].meta["together"] = len(own)
            program = Program([runs[n].setup for n in own], [runs[n].state for n in own])
            self._programs.append((program, own))

    def dispatch(self) -> None:
        """Start the next step of every run."""
        for program, _ in self._programs:
            program.dispatch()

    def losses(self, waiting: int) -> list[list[float]]:
        """A row of losses, run by run, for every dispatch but the newest `waiting`."""
        rows = [program.losses(waiting) for program, _ in self._programs]
        return [self._in_order(row) for row in zip(*rows, strict=True)]

    def states(self) -> list[Tree]:
        """The runs' present states; not to be used after the next dispatch."""
        return self._in_order([program.states() for program, _ in self._programs])

    def _in_order(self, parts: Sequence[Sequence]) -> list:
        values = {}
        for (_, own), part in zip(self._programs, parts, strict=True):
            values |= dict(zip(own, part, strict=True))
        return [values[number] for number in sorted(values)]


def groups(runs: Sequence[TrainingRun]) -> list[list[TrainingRun]]:
    """Runs that can be trained side by side, in the order of the first of each group."""
    by_kind: dict[str, list[TrainingRun]] = {}
    for run in runs:
        by_kind.setdefault(kind(run.setup, run.state), []).append(run)
    return list(by_kind.values())


def kind(setup: Setup, state: Tree) -> str:
    """Runs of one kind can be one program: equal steps of arrays of equal shapes, equally far."""
    plain = configs.to_plain(setup.config)
    shapes = jax.tree.map(lambda x: f"{x.dtype}{x.shape}", (state, setup.train_items))
    facts = [plain[key] for key in _STEP_KEYS]
    return json.dumps([facts, str(shapes), setup.plan.batch, int(state.step)], sort_keys=True)


def devices() -> list[mesh.Mesh]:
    """Every device as a mesh of its own."""
    return [mesh.mesh_of([device]) for device in jax.devices()]
