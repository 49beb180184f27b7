"""The two sides of a comparison: a training step and inference by feedseg and by PyTorch."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, peers
from feedseg import compiler, models, optimizer, parallel
from feedseg import config as configs
from feedseg import step as steps

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
    step = steps.make_train_step(model, adam, config, case.batch, case.batch, place)
    options = compiler.options(models.count_parameters(state.params))
    compiled, compile_s = _compile(parallel.compile_train(mesh, step, options), state, items)

    def run() -> float:
        nonlocal state
        state, loss = jax.block_until_ready(compiled(state, items))
        return _finite(float(loss))

    return compiled, compile_s, run


def _feedseg_forward(case: Case):
    _, model = configured(case)
    image = jnp.asarray(case.data()[0], jnp.float32) / 255
    small = jnp.zeros((1, model.stride, model.stride, 1))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), small, train=False))
    variables = jax.tree_util.tree_map_with_path(_plausible, shapes)
    forward = jax.jit(
        lambda v, x: steps.forward(model, v, x, jnp.dtype(case.dtype))[0],
        compiler_options=compiler.options(models.count_parameters(variables["params"])),
    )
    compiled, compile_s = _compile(forward, variables, image)
    return compiled, compile_s, lambda: compiled(variables, image).block_until_ready()


def _plausible(path, leaf) -> jax.Array:
    """Numbers with which the maps neither vanish nor overflow, without a program of their own."""
    kind, rng = path[-1].key, np.random.default_rng(0)
    if kind in ("scale", "var"):
        return jnp.ones(leaf.shape, leaf.dtype)
    fan_in = math.prod(leaf.shape[:-1]) or 1
    spread = math.sqrt(2 / fan_in) if "kernel" in kind else 0.1
    return jnp.asarray(rng.normal(size=leaf.shape) * spread, leaf.dtype)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise SystemExit(f"the loss is {loss}: such steps time nothing")
    return loss


# PyTorch ----------------------------------------------------------------------------------------


def torch_side(case: Case, compiled: bool) -> Side:
    """The network in PyTorch, channels last, eager or by torch.compile."""
    run = {"step": _torch_step, "forward": _torch_forward}[case.case](case, compiled)
    compile_s = measure.seconds(run) if compiled else 0.0
    return Side(run, compile_s, measure.torch_peak_mib(run), {})


def _torch_network(case: Case):
    torch.manual_seed(0)
    network = peers.build(case.network, case.classes).to(measure.torch_device())
    for parameter in network.parameters():
        if parameter.dim() == 4:  # AWEL's kernel has 5
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return network


def _torch_data(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = case.data()
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    image = image.to(measure.torch_device(), memory_format=torch.channels_last)
    return image, torch.from_numpy(labels).long().to(measure.torch_device())


def _autocast(case: Case):
    """The forward pass in bfloat16 where it is asked for; weights stay float32."""
    kind = measure.torch_device().type
    return torch.autocast(kind, torch.bfloat16, enabled=case.dtype == "bfloat16")


def _torch_step(case: Case, compiled: bool) -> Callable[[], float]:
    network = _torch_network(case).train()
    image, labels = _torch_data(case)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)

    def loss_of(image, labels):
        return peers.loss(network, image, labels)

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def run() -> float:
        adam.zero_grad()
        with _autocast(case):
            loss = loss_of(image, labels)
        loss.backward()
        adam.step()
        measure.synchronize()
        return _finite(loss.item())

    return run


def _torch_forward(case: Case, compiled: bool) -> Callable[[], torch.Tensor]:
    network, image = _torch_network(case).eval(), _torch_data(case)[0]
    network = torch.compile(network) if compiled else network

    def first(found):
        return found[0] if isinstance(found, tuple) else found

    def run() -> torch.Tensor:
        with torch.inference_mode(), _autocast(case):
            logits = first(network(image))
        measure.synchronize()
        return logits

    return run


def useful_flops(case: Case) -> int:
    """Operations of the network's convolutions and products in the plain form, 2 per product.

    Counted by PyTorch without computing anything: a compiler's own number counts a loop once.
    """
    with torch.device("meta"):
        network = peers.build(case.network, case.classes)
        image = torch.empty(case.batch, 1, case.side, case.side)
        labels = torch.empty(case.batch, case.side, case.side, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter:
        if case.case == "step":
            peers.loss(network.train(), image, labels).backward()
        else:
            with torch.no_grad():
                network.eval()(image)
    return counter.get_total_flops()
