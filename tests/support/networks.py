"""Networks for tests: built, filled with random numbers and compiled once for all of them."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from feedseg import models
from feedseg.training import losses

# Compiling quickly matters more here than running quickly.
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# Narrow versions, where the widths can be chosen, for what has to be computed.
NARROW = {
    "unet": common.model("unet", filters=(4, 6)),
    "kato_unet": common.model("kato_unet", filters=(4, 6)),
    "ru_net": common.model("ru_net", filters=(4, 6)),
    "unet_original": common.model("unet_original", filters=(4, 6)),
    "blood_unet": common.model("blood_unet", filters=(4, 6)),
    "unet_plus_plus": common.model("unet_plus_plus", filters=(3, 4, 5)),
    "attention_unet": common.model("attention_unet", filters=(4, 6)),
    "unet3plus": common.model("unet3plus", filters=(3, 4, 5), skip_channels=2),
    "aep": common.model("aep", dropout=0.0),  # with dropout: aep_net
    "feedback_unet": common.model("feedback_unet", filters=(3, 4, 5)),
    "feedback_attention": common.model("feedback_attention", filters=(4, 5), dropout=0.0),
    "saunet": common.model(
        "saunet",
        growth=4,
        blocks=(1, 1, 1, 1),
        shape_stream=(4, 3, 3, 2),
        decoder=(32, 32, 16, 8, 6, 4),
    ),
    "sa_unet": common.model("sa_unet", filters=(4, 4, 6)),
}


def build(name: str, num_classes: int = 2, **changes):
    return models.build(num_classes, common.model(name, **changes))


def shapes_of(model, image_shape: tuple[int, ...]):
    """Shapes of ((logits, out), variables) without computing anything."""
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    start = functools.partial(model.init_with_output, train=False)
    return jax.eval_shape(start, jax.random.key(0), image)


def random_variables(model, image_shape: tuple[int, ...], seed: int = 0) -> dict:
    """Kernels with gain 1, scales and variances around 1, drawn with NumPy: nothing to compile."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            value = rng.normal(size=leaf.shape) * math.sqrt(2 / fan_in)
        elif kind in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = rng.normal(size=leaf.shape) * 0.2
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, image_shape)[1])


@functools.cache
def compiled(name: str):
    """(model, train, evaluate) of a narrow network; both raise if they are traced twice.

    train(variables, image, labels, key) -> (loss, logits, out, changed statistics), gradients.
    """
    model = models.build(2, NARROW.get(name, models.defaults(name)))

    def loss_of(params, batch_stats, image, labels, key):
        (logits, out), changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        outputs = losses.loss_outputs(logits, out)
        terms = {each: {"cross_entropy": 1.0} for each in outputs if each != "first"}
        if "edge" in terms:
            terms["edge"] = {"edge_cross_entropy": 1.0}
        loss = losses.total_loss(outputs, labels, terms, jnp.ones(2))[0]
        return loss, (logits, out, changed.get("batch_stats", {}))

    def train(variables, image, labels, key):
        (loss, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            variables["params"], variables.get("batch_stats", {}), image, labels, key
        )
        return (loss, *rest), gradients

    def evaluate(variables, image):
        return model.apply(variables, image, train=False, mutable=["batch_stats"])

    def once(function):
        function.__name__ += f"_{name}"  # chex counts by name
        return jax.jit(chex.assert_max_traces(function, n=1), compiler_options=FAST_COMPILE)

    return model, once(train), once(evaluate)


def batch(model, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    side = 2 * model.stride
    image = jnp.asarray(rng.random((2, side, side, 1)), jnp.float32)
    return image, jnp.asarray(rng.integers(2, size=image.shape[:3]), jnp.uint8)


def finite_reach(model) -> int:
    """Largest distance in px between an input pixel and an output pixel that depends on it.

    For networks with bilinear up-sampling, where an infinity times a weight of 0 would spread:
    measured with a large number on strips, at every position within a stride.
    """
    middle, strip = 2 * model.halo, np.arange(model.stride)
    strips = np.ones((model.stride, model.stride, 2 * middle + model.stride, 1), np.float32)

    def draw(path, leaf):  # means of positive numbers: nothing cancels, no ReLU is dead
        kind = path[-1].key
        value = 1 / math.prod(leaf.shape[:-1]) if kind == "kernel" else kind in ("scale", "var")
        return np.full(leaf.shape, value, np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes_of(model, strips.shape)[1])
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False)[0], compiler_options=FAST_COMPILE)
    before = np.asarray(forward(variables, strips))
    strips[strip, :, middle + strip] = 1e30
    changed = (np.abs(forward(variables, strips) - before) > 1e-3 * before).any((1, 3))
    assert changed[strip, middle + strip].all()
    where, column = np.nonzero(changed)
    return int(abs(column - (middle + where)).max())
