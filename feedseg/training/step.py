"""Training and evaluation steps: pure functions, no devices, no files.

All randomness is a function of (seed, step): the order of an epoch, augmentation and dropout. A run
that continues from any step is therefore the run that was never stopped.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from feedseg import models
from feedseg.evaluation import metrics
from feedseg.io import normalize
from feedseg.training import augment, losses

Array = jax.Array
Tree = Any
Batch = tuple[Array, Array, dict[str, Array]]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    totals: sums of the loss terms since the epoch began, and `bad_step`, the first step of the
    epoch whose loss was not finite (-1: none). Kept here so that a run saved within an epoch
    continues with the same epoch means. average: moving averages of parameters and statistics;
    empty without.
    """

    step: Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    totals: dict[str, Array]
    average: Tree = flax.struct.field(default_factory=dict)

    def variables(self) -> Tree:
        """Parameters and statistics that are evaluated and kept: the averages where there are."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class Items:
    """A split on the device: images [N, H, W, C] raw, labels [N, H, W], limits [N].

    maps: per-pixel maps [N, H, W] that belong to the labels, by name.
    """

    images: Array
    labels: Array
    low: Array
    high: Array
    maps: dict[str, Array] = flax.struct.field(default_factory=dict)

    def take(self, index: Array) -> tuple[Array, Array]:
        """Normalized images [B, H, W, C] in [0, 1] and labels of the chosen items."""
        raw = jnp.take(self.images, index, axis=0)
        image = normalize.apply(raw, self.low[index], self.high[index], jnp)
        return image, jnp.take(self.labels, index, axis=0)

    def take_maps(self, index: Array) -> dict[str, Array]:
        """Maps [B, H, W] of the chosen items."""
        return {name: jnp.take(values, index, axis=0) for name, values in self.maps.items()}


@flax.struct.dataclass(kw_only=True)
class TrainItems(Items):
    """The training split with what else may differ between runs of one program.

    seed: int32 scalar; class_weights: [K].
    """

    seed: Array
    class_weights: Array

    def chosen(self, step: Array, size: int) -> Array:
        """Items of a step, [size]."""
        return batch_index(order_key(self.seed), step, self.labels.shape[0], size)

    def batch(self, step: Array, key: Array, size: int, options, place: Callable) -> Batch:
        """Images [size, H, W, C] in [0, 1], labels and maps of a step, augmented.

        key: of the step's augmentation; options: the config's `augment` part; place: puts a batch
        on the mesh.
        """
        index = self.chosen(step, size)
        image, labels = map(place, self.take(index))
        maps = jax.tree.map(place, self.take_maps(index))
        return augment.augment(key, image, labels, options, maps)


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    terms: dict,
    seed: int,
    maps: tuple[str, ...] = (),
    averaged: bool = False,
) -> TrainState:
    """State before step 0 from the seed; image_shape: [N, H, W, C] of a small legal input.

    maps: names of the data set's per-pixel maps. averaged: with moving averages.
    Raises UserError if the loss terms do not fit the network's outputs.
    """

    def start():
        key, image = jax.random.key(seed), jnp.zeros(image_shape, jnp.float32)
        (logits, out), variables = model.init_with_output(
            {"params": key, "dropout": key}, image, train=False
        )
        return variables, losses.loss_outputs(logits, out)

    def loss_parts(outputs):
        labels = jnp.zeros(image_shape[:-1], jnp.uint8)
        zeros = dict.fromkeys(maps, jnp.zeros(image_shape[:-1]))
        return losses.total_loss(outputs, labels, terms, jnp.ones(model.num_classes), zeros)[1]

    _, outputs = jax.eval_shape(start)
    losses.check_terms(terms, outputs, maps)
    parts = jax.eval_shape(loss_parts, outputs)

    def state() -> TrainState:
        variables, _ = start()
        totals = {name: jnp.float32(0) for name in ("loss", *parts)} | {"bad_step": jnp.int32(-1)}
        return TrainState(
            step=jnp.int32(0),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
            totals=totals,
        )

    # Drawing numbers once is not worth the compiler's time: 3 s instead of 13, with equal results.
    quick = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    first = jax.jit(state, compiler_options=quick)()
    return with_averages(first) if averaged else first


def with_averages(state: TrainState) -> TrainState:
    """The state with averages that begin at its values."""
    return state.replace(average=jax.tree.map(jnp.copy, state.replace(average={}).variables()))


def moving_average(average: Tree, new: Tree, step: Array, decay: float) -> Tree:
    """a <- d a + (1 - d) x with d = min(decay, (1 + step) / (10 + step)), so that the first values
    are soon forgotten.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, x: kept * a + (1 - kept) * x, average, new)


def batch_index(key: Array, step: Array, count: int, batch: int) -> Array:
    """Items of a step: `batch` consecutive ones of the epoch's permutation of `count` items."""
    per_epoch = count // batch
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), count)
    return jax.lax.dynamic_slice(order, (step % per_epoch * batch,), (batch,))


def order_key(seed: int) -> Array:
    """Key of the epochs' orders, apart from the keys of the steps."""
    return jax.random.split(jax.random.key(seed), 2)[1]


def _accumulate(totals: dict, step: Array, per_epoch: int, loss: Array, parts: dict) -> dict:
    fresh = step % per_epoch == 0
    values = {"loss": loss, **parts}
    sums = {k: jnp.where(fresh, 0.0, totals[k]) + v for k, v in values.items()}
    before = jnp.where(fresh, -1, totals["bad_step"])
    bad = jnp.where((before < 0) & ~jnp.isfinite(loss), step, before)
    return sums | {"bad_step": bad.astype(jnp.int32)}


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config,
    per_epoch: int,
    batch: int,
    place: Callable[[Array], Array] = lambda x: x,
) -> Callable[[TrainState, TrainItems], tuple[TrainState, Array]]:
    """`step(state, items) -> (state, loss)`; items: `TrainItems` or `crops.CropItems`.

    per_epoch: steps; batch: images of a step. place: puts a batch on the mesh (a sharding
    constraint). In bfloat16 the forward and backward pass run in it, parameters, statistics, loss
    and optimizer stay float32.
    """
    dtype = jnp.dtype(config.train.compute_dtype)
    terms = config.loss.terms.to_dict()

    def loss_of(params, batch_stats, image, labels, maps, class_weights, key):
        params = jax.tree.map(lambda p: p.astype(dtype), params)
        variables = {"params": params, "batch_stats": batch_stats}
        (logits, out), changed = model.apply(
            variables, image, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        outputs = losses.loss_outputs(logits, out)
        loss, parts = losses.total_loss(outputs, labels, terms, class_weights, maps)
        return loss, (parts, changed.get("batch_stats", batch_stats))

    def step(state: TrainState, items: TrainItems) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(jax.random.key(items.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        image, labels, maps = items.batch(state.step, augment_key, batch, config.augment, place)
        grads, (loss, parts, batch_stats) = _gradients(
            loss_of, state, image.astype(dtype), labels, maps, items.class_weights, dropout_key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        totals = _accumulate(state.totals, state.step, per_epoch, loss, parts)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average:
            new = {"params": params, "batch_stats": batch_stats}
            average = moving_average(average, new, state.step, config.train.ema_decay)
        return TrainState(state.step + 1, params, batch_stats, opt_state, totals, average), loss

    return step


def _gradients(loss_of, state, *batch):
    (loss, (parts, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(
        state.params, state.batch_stats, *batch
    )
    return grads, (loss, parts, batch_stats)


def finite(tree: Tree) -> Array:
    """Whether all numbers of a tree are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def repeat(step: Callable, times: int) -> Callable:
    """`times` steps in one program; the loss of the last one."""

    def many(state, items):
        state, values = jax.lax.scan(lambda s, _: step(s, items), state, length=times)
        return state, values[-1]

    return many


def make_eval_step(
    model: nn.Module, dtype: str, num_classes: int, place: Callable[[Array], Array] = lambda x: x
) -> Callable[[Tree, Items, Array], dict[str, Array]]:
    """`step(variables, items, index) -> {output: int32 [B, K, K]}`, one matrix per image.

    Stacked outputs give one entry per map, `members/0`, ...; index [B].
    """
    compute = jnp.dtype(dtype)

    def step(variables, items: Items, index: Array) -> dict[str, Array]:
        image, labels = items.take(index)
        logits, out = models.forward(model, variables, place(image), compute)
        matrices = {}
        for name, value in losses.named_outputs(logits, out).items():
            maps = (
                {f"{name}/{i}": m for i, m in enumerate(value)}
                if name in losses.STACKS
                else {name: value}
            )
            for key, one in maps.items():
                matrices[key] = metrics.confusion_per_image(labels, one.argmax(-1), num_classes)
        return matrices

    return step
