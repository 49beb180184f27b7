"""What is compared, and feedseg's side of it: a training step and inference."""

import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from feedseg import models
from feedseg.runs import config as configs
from feedseg.runtime import mesh as parallel
from feedseg.runtime import xla
from feedseg.training import optimizer
from feedseg.training import step as steps

# Cross-entropy of all maps that are trained on, Adam, no augmentation.
CONFIGS = {
    "aep": "configs/aep.py:dataset=synthetic",
    "unet": "configs/baseline.py:model=unet,recipe=aep",
    "feedback_unet": "configs/feedback_unet.py:recipe=paper",
    "ru_net": "configs/baseline.py:model=ru_net,recipe=aep",
    "unet_plus_plus": "configs/baseline.py:model=unet_plus_plus,recipe=aep",
}
CLASSES = {"aep": 2}  # as in the tables of the papers, where the others have 4


class Case(NamedTuple):
    """What is compared. case: `step`, one of training, or `forward`, inference."""

    case: str
    network: str
    batch: int
    side: int  # px
    dtype: str  # float32 | bfloat16
    dispatch: int = 1  # training steps in one program

    @property
    def classes(self) -> int:
        return CLASSES.get(self.network, 4)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """images [N, H, W, 1] and labels [N, H, W], 8 bit."""
        rng = np.random.default_rng(0)
        shape = (self.batch, self.side, self.side)
        images = rng.integers(256, size=(*shape, 1), dtype=np.uint8)
        return images, rng.integers(self.classes, size=shape, dtype=np.uint8)


class Side(NamedTuple):
    """One library's way. run: one call, which waits for its result."""

    run: Callable[[], object]
    compile_s: float  # with the first call, of PyTorch; 0: eager
    peak_mib: float | None
    facts: dict  # by the compiler: flops, bytes, memory


# feedseg ----------------------------------------------------------------------------------------


def feedseg_side(case: Case) -> Side:
    """feedseg's own compiled training step (batch, scaling, loss, Adam) or its forward pass."""
    compiled, compile_s, run = {"step": _feedseg_step, "forward": _feedseg_forward}[case.case](case)
    peak = measure.program_mib(compiled)
    if jax.default_backend() == "cpu":
        peak = measure.resident_peak_mib(run)
    costs = compiled.cost_analysis() or {}
    facts = {
        "program_mib": measure.program_mib(compiled),
        "program_flops": costs.get("flops"),
        "program_bytes": costs.get("bytes accessed"),
    }
    return Side(run, compile_s, peak, facts)


def _compile(function: Callable, *arguments):
    begun = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - begun


def configured(case: Case):
    """(config, network) of feedseg."""
    config, _ = configs.parse_flags([f"--config={CONFIGS[case.network]}"])
    config.train.compute_dtype = case.dtype
    return config, models.build(case.classes, config.model)


def _feedseg_step(case: Case):
    config, model = configured(case)
    images, labels = case.data()
    mesh = parallel.make_mesh(1, case.batch, require_gpu=False)
    adam = optimizer.build(config.optimizer, optimizer.schedule(config.optimizer, 1, 1))
    terms = config.loss.terms.to_dict()
    small = (1, model.stride, model.stride, 1)
    state = parallel.put(mesh, steps.init_state(model, adam, small, terms, config.seed))
    limits = np.zeros(case.batch, np.float32), np.full(case.batch, 255, np.float32)
    own = dict(seed=np.int32(config.seed), class_weights=np.ones(case.classes, np.float32))
    items = parallel.put(mesh, steps.TrainItems(images, labels, *limits, **own))
    place = parallel.batch_placer(mesh)
    step = steps.make_train_step(model, adam, config, 1, case.batch, place)
    step = steps.repeat(step, case.dispatch) if case.dispatch > 1 else step
    options = xla.options(models.count_parameters(state.params))
    compiled, compile_s = _compile(parallel.compile_train(mesh, step, options), state, items)

    def run() -> float:
        nonlocal state
        state, loss = jax.block_until_ready(compiled(state, items))
        return finite(float(loss))

    return compiled, compile_s, run


def _feedseg_forward(case: Case):
    _, model = configured(case)
    image = jnp.asarray(case.data()[0], jnp.float32) / 255
    variables = plausible_variables(model, (1, model.stride, model.stride, 1))
    forward = jax.jit(
        lambda v, x: models.forward(model, v, x, jnp.dtype(case.dtype))[0],
        compiler_options=xla.options(models.count_parameters(variables["params"])),
    )
    compiled, compile_s = _compile(forward, variables, image)
    return compiled, compile_s, lambda: compiled(variables, image).block_until_ready()


def plausible_variables(model, image_shape: tuple[int, ...]):
    """Variables of a network filled by `_plausible`."""
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    start = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(start, jax.random.key(0), image)
    return jax.tree_util.tree_map_with_path(_plausible, shapes)


def _plausible(path, leaf) -> jax.Array:
    """Numbers with which the maps neither vanish nor overflow, without a program of their own."""
    kind, rng = path[-1].key, np.random.default_rng(0)
    if kind in ("scale", "var"):
        return jnp.ones(leaf.shape, leaf.dtype)
    fan_in = math.prod(leaf.shape[:-1]) or 1
    spread = math.sqrt(2 / fan_in) if "kernel" in kind else 0.1
    return jnp.asarray(rng.normal(size=leaf.shape) * spread, leaf.dtype)


def finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise SystemExit(f"the loss is {loss}: such steps time nothing")
    return loss
