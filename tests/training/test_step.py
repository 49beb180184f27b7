"""Training and evaluation steps: order, devices, repetition, precision, void pixels, NaN."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg import models
from feedseg.io import normalize
from feedseg.runtime import mesh as parallel
from feedseg.runtime.errors import UserError
from feedseg.training import losses, optimizer, validate
from feedseg.training import step as steps
from tests.support import tiny

COUNT, BATCH, SIZE, CLASSES = 10, 4, 16, 3
PER_EPOCH = COUNT // BATCH


def items(void=0.3, dtype=np.uint8, bad=None) -> steps.Items:
    """Random images and labels; `bad`: item with a NaN (floating point images)."""
    rng = np.random.default_rng(0)
    images = rng.random((COUNT, SIZE, SIZE, 1)) * (1 if dtype == np.float32 else 255)
    images = images.astype(dtype)
    if bad is not None:
        images[bad, 3, 3] = np.nan
    labels = rng.integers(0, CLASSES, (COUNT, SIZE, SIZE)).astype(np.uint8)
    labels[rng.random(labels.shape) < void] = 255
    low = np.zeros(COUNT, np.float32)
    high = np.full(COUNT, 1 if dtype == np.float32 else 255, np.float32)
    fields = map(jnp.asarray, (images, labels, low, high))
    return steps.TrainItems(*fields, seed=jnp.int32(0), class_weights=jnp.ones(CLASSES))


def config(**changes):
    """Gradient descent: a rounding error stays one, which Adam would make a step of."""
    base = dict(optimizer__name="sgd", optimizer__learning_rate=0.1, optimizer__momentum=0.9)
    return tiny.get_config(**{**base, **changes})


class Trainer:
    """Model, optimizer, compiled step and a fresh state for a configuration."""

    def __init__(self, options, devices=1, repeat=1, model=None, batch=BATCH):
        self.options = options
        self.mesh = parallel.make_mesh(devices, batch, require_gpu=False)
        self.model = model or models.build(CLASSES, options.model)
        self.tx = optimizer.build(
            options.optimizer, optimizer.schedule(options.optimizer, PER_EPOCH, 3)
        )
        place = parallel.batch_placer(self.mesh)
        one = steps.make_train_step(self.model, self.tx, options, COUNT // batch, batch, place)
        self.step = parallel.compile_train(
            self.mesh, one if repeat == 1 else steps.repeat(one, repeat)
        )

    def state(self) -> steps.TrainState:
        terms = self.options.loss.terms.to_dict()
        shape = (1, SIZE, SIZE, 1)
        averaged = self.options.train.ema_decay > 0
        state = steps.init_state(
            self.model, self.tx, shape, terms, self.options.seed, averaged=averaged
        )
        return parallel.put(self.mesh, state)

    def run(self, count: int, data: steps.Items):
        """State after `count` calls and the loss of each."""
        data = parallel.put(self.mesh, data.replace(seed=np.int32(self.options.seed)))
        state, values = self.state(), []
        for _ in range(count):
            state, loss = self.step(state, data)
            values.append(float(loss))
        return jax.device_get(state), values


@pytest.fixture(scope="module")
def trainer():
    return Trainer(config())


@pytest.fixture(scope="module")
def two_steps(trainer):
    return trainer.run(2, items())


def assert_close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Order ------------------------------------------------------------------------------------------


def order(seed: int, epoch: int, count=12, batch=3) -> list[int]:
    key, per_epoch = steps.order_key(seed), count // batch
    chosen = [
        steps.batch_index(key, jnp.int32(epoch * per_epoch + i), count, batch)
        for i in range(per_epoch)
    ]
    return np.concatenate(chosen).tolist()


def test_every_epoch_is_a_permutation_that_seed_and_step_decide():
    epochs = [order(0, epoch) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, order(1, 0), list(range(12))]}) == 5
    assert order(0, 1) == epochs[1], "asked again, out of turn"


def test_items_left_over_differ_from_epoch_to_epoch():
    used = [set(order(0, epoch, count=10, batch=4)) for epoch in range(6)]
    assert all(len(each) == 8 for each in used)
    assert set.union(*used) == set(range(10))


def test_batches_are_normalized_and_follow_the_order():
    """The first loss by hand: the images of the first batch through the first parameters."""
    trainer = Trainer(
        config(augment__dihedral=False, augment__grey_offset=0.0), model=Echo(CLASSES)
    )
    data = items()
    index = np.asarray(steps.batch_index(steps.order_key(0), jnp.int32(0), COUNT, BATCH))
    image = normalize.apply(np.asarray(data.images)[index], np.zeros(BATCH), np.full(BATCH, 255.0))
    classifier = jax.device_get(trainer.state().params["classifier"])
    logits = image * classifier["kernel"][0] + classifier["bias"]
    expected = cross_entropy(logits, np.asarray(data.labels)[index])
    _, values = trainer.run(1, data)
    assert values[0] == pytest.approx(expected, abs=1e-6)
    _, augmented = Trainer(config(), model=Echo(CLASSES)).run(1, data)
    assert values[0] != augmented[0], "augmentation is on in the other tests"


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the labeled pixels, in float64."""
    known = labels != 255
    z = logits.astype(np.float64)[known]
    log_sum = np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1)) + z.max(-1)
    return float(np.mean(log_sum - z[np.arange(len(z)), labels[known]]))


@pytest.mark.parametrize("what", ["dropout", "augmentation", "neither"])
def test_every_step_draws_its_own_numbers(what):
    """All items in every batch and a rate of 0: only what is drawn anew changes the loss."""
    quiet = dict(optimizer__learning_rate=0.0, augment__dihedral=False, augment__grey_offset=0.0)
    if what == "augmentation":
        quiet["augment__grey_offset"] = 0.2
    model = None if what == "dropout" else Echo(CLASSES)
    _, values = Trainer(config(**quiet), model=model, batch=COUNT).run(3, items())
    if what == "neither":
        np.testing.assert_allclose(values, values[0], atol=1e-6)
    else:
        assert np.abs(np.diff([*values, values[0]])).min() > 1e-5


# The same again ---------------------------------------------------------------------------------


def test_rerun_is_bit_identical(trainer, two_steps):
    state, values = trainer.run(2, items())
    assert values == two_steps[1]
    assert_equal(state, two_steps[0])


def test_the_seed_decides_the_first_parameters(trainer):
    same, other = Trainer(config()).state(), Trainer(config(seed=1)).state()
    assert_equal(same.params, trainer.state().params)
    kernels = (state.params["classifier"]["kernel"] for state in (same, other))
    assert not np.array_equal(*kernels)


def test_four_devices_equal_one():
    """Wide enough for the layers' own kernel gradient."""
    options = config(model__filters=(32,))
    (one, expected), (four, values) = (Trainer(options, devices=n).run(2, items()) for n in (1, 4))
    assert_close(values, expected)
    assert_close(four.params, one.params)
    assert_close(four.batch_stats, one.batch_stats)
    assert_close(four.totals, one.totals)


def test_the_batch_lies_split_over_the_devices():
    mesh = parallel.make_mesh(4, BATCH, require_gpu=False)
    placed = jax.jit(parallel.batch_placer(mesh))(jnp.zeros((BATCH, 2)))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 2)}
    assert len({shard.device for shard in placed.addressable_shards}) == 4
    assert parallel.describe(mesh) == "4 x cpu"


def test_every_device_works_on_its_part_of_the_batch():
    trainer = Trainer(config(), devices=4, model=Echo(CLASSES))
    program = trainer.step.lower(trainer.state(), parallel.put(trainer.mesh, items())).compile()
    logits = "f32[{},16,16,3]"
    assert logits.format(1) in program.as_text()
    assert logits.format(4) not in program.as_text()


def test_scan_equals_step_by_step(two_steps):
    state, values = Trainer(config(), repeat=2).run(1, items())
    assert_close(values[0], two_steps[1][1])
    assert_close(state.params, two_steps[0].params)
    assert_close(state.totals, two_steps[0].totals)
    assert int(state.step) == 2


@pytest.mark.parametrize(
    "count, batch, expected", [(0, 4, 4), (0, 6, 3), (0, 5, 1), (2, 4, 2), (1, 5, 1)]
)
def test_number_of_devices(count, batch, expected):
    assert parallel.make_mesh(count, batch, require_gpu=False).size == expected


MESHES = [
    ((5, 5, False), r"runtime\.devices=5: only 4 device\(s\) are here"),
    ((4, 6, False), r"train\.batch_size=6 does not divide by runtime\.devices=4"),
    (
        (1, 4, True),
        r"runtime\.require_gpu is set and JAX sees no accelerator: .*doctor",
    ),
]


@pytest.mark.parametrize("arguments, message", MESHES)
def test_devices_that_are_not_there(arguments, message):
    with pytest.raises(UserError, match=message):
        parallel.make_mesh(*arguments)


# State ------------------------------------------------------------------------------------------


def test_the_state_is_donated(trainer):
    old, data = trainer.state(), parallel.put(trainer.mesh, items())
    trainer.step(old, data)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.opt_state)))


def test_the_step_changes_parameters_statistics_and_totals(trainer, two_steps):
    state, values = two_steps
    fresh = trainer.state()
    for part in ("params", "batch_stats", "opt_state"):
        changed = jax.tree.map(
            lambda a, b: not np.array_equal(a, b), getattr(state, part), getattr(fresh, part)
        )
        assert sum(jax.tree.leaves(changed)) > len(jax.tree.leaves(changed)) / 2, part
    assert int(state.step) == 2
    assert state.totals["loss"] == pytest.approx(sum(values), abs=1e-6)
    assert state.totals["bad_step"] == -1


def test_totals_start_again_with_every_epoch(trainer):
    state, values = trainer.run(PER_EPOCH + 1, items())
    assert state.totals["loss"] == pytest.approx(values[-1], abs=1e-6)
    assert state.totals["final/cross_entropy"] == pytest.approx(values[-1], abs=1e-6)


def test_bfloat16_computes_in_it_and_keeps_float32(two_steps):
    trainer = Trainer(config(train__compute_dtype="bfloat16"))
    state, values = trainer.run(2, items())
    kept = jax.tree.leaves((state.params, state.batch_stats, state.opt_state))
    assert {leaf.dtype for leaf in kept if leaf.dtype != np.int32} == {np.dtype("float32")}
    assert values != two_steps[1]
    np.testing.assert_allclose(values, two_steps[1], rtol=0.05)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = models.forward(trainer.model, variables, jnp.zeros((1, 16, 16, 1)), jnp.bfloat16)
    assert logits.dtype == jnp.bfloat16


def test_bfloat16_parameters_inside_the_network():
    Echo.seen.clear()
    Trainer(config(train__compute_dtype="bfloat16"), model=Echo(CLASSES)).run(1, items())
    assert Echo.seen[-1] == jnp.bfloat16


def test_void_pixels_do_not_change_the_loss():
    """What a network says at void pixels is nothing to the loss or its gradient."""
    trainer = Trainer(config(), model=Echo(CLASSES))
    _, plain = trainer.run(2, items(void=0.3))
    data = items(void=0.3)
    noise = np.where(np.asarray(data.labels)[..., None] == 255, 255, np.asarray(data.images))
    _, other = trainer.run(2, data.replace(images=jnp.asarray(noise, jnp.uint8)))
    assert not np.array_equal(noise, data.images)
    np.testing.assert_allclose(plain, other, atol=1e-6)


class Echo(nn.Module):
    """Logits of a pixel from its own gray value; two members, the second turned round."""

    num_classes: int
    seen: ClassVar[list] = []  # types of the logits, one per trace

    @nn.compact
    def __call__(self, image, *, train):
        logits = nn.Dense(self.num_classes, name="classifier")(image)
        self.seen.append(logits.dtype)
        return logits, {"members": jnp.stack([logits, -logits])}


def test_terms_over_stacked_outputs():
    terms = {"final": {"dice": 1.0}, "members": {"cross_entropy": (1.0, 0.0)}}
    state, _ = Trainer(config(loss__terms=terms), model=Echo(CLASSES)).run(1, items())
    names = {"loss", "bad_step", "final/dice", "members/0/cross_entropy", "members/1/cross_entropy"}
    assert set(state.totals) == names
    total = state.totals["final/dice"] + state.totals["members/0/cross_entropy"]
    assert state.totals["loss"] == pytest.approx(float(total), abs=1e-6)


def test_terms_the_network_does_not_have():
    with pytest.raises(UserError, match=r"loss\.terms\.members: this network has no such output"):
        Trainer(config(loss__terms={"members": {"dice": 1.0}})).state()


# Not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_bad_step_is_the_first_of_the_epoch_that_is_not_finite(first):
    trainer = Trainer(config(), model=Echo(CLASSES))
    index = steps.batch_index(steps.order_key(0), jnp.int32(first), COUNT, BATCH)
    data = items(dtype=np.float32, bad=int(index[0]))
    state, values = trainer.run(2, data)
    assert np.isnan(values).tolist() == [first == 0, True]
    assert state.totals["bad_step"] == first
    assert not steps.finite(state.params)
    if first == 1:
        state, _ = trainer.run(1, data)
        assert state.totals["bad_step"] == -1 and steps.finite(state.params)


# Averages ---------------------------------------------------------------------------------------


def test_averages_by_hand(trainer):
    """They begin at the first values; d = (1 + t) / (10 + t) until it would pass the decay."""
    state = trainer.state()
    expected = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    data = parallel.put(trainer.mesh, items())
    for kept in (1 / 10, 2 / 11, 3 / 12):
        state, _ = trainer.step(state, data)
        new = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
        expected = jax.tree.map(lambda a, x, d=kept: d * a + (1 - d) * x, expected, new)
        for a, b in zip(*map(jax.tree.leaves, (state.variables(), expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert steps.moving_average(1.0, 0.0, 89, 0.5) == 0.5
    plain = state.replace(average={}).variables()
    assert plain["params"] is state.params


# Evaluation -------------------------------------------------------------------------------------


def evaluated(devices=1, batch=BATCH):
    """Matrices of every image, and logits of the same network on all images at once."""
    mesh = parallel.make_mesh(devices, batch, require_gpu=False)
    model, data = Echo(CLASSES), parallel.put(mesh, items())
    image, _ = data.take(jnp.arange(COUNT))
    variables = {"params": model.init(jax.random.key(3), image, train=False)["params"]}
    variables["batch_stats"] = {}
    step = parallel.compile_eval(
        mesh, steps.make_eval_step(model, "float32", CLASSES, parallel.batch_placer(mesh))
    )
    matrices = validate.confusion_matrices(step, variables, data, batch)
    return matrices, np.asarray(model.apply(variables, image, train=False)[0])


@pytest.mark.parametrize("devices, batch", [(1, BATCH), (1, 1), (1, 16), (4, 4)])
def test_confusion_of_every_image(devices, batch):
    matrices, logits = evaluated(devices, batch)
    labels = np.asarray(items().labels)
    assert set(matrices) == {"final", "members/0", "members/1"}
    for name, maps in (("final", logits), ("members/0", logits), ("members/1", -logits)):
        assert matrices[name].dtype == np.int64
        for image in range(COUNT):
            expected = np.zeros((CLASSES, CLASSES), int)
            known = labels[image] != 255
            np.add.at(expected, (labels[image][known], maps[image].argmax(-1)[known]), 1)
            np.testing.assert_array_equal(matrices[name][image], expected)
    scores = validate.summaries(matrices, ("a", "b", "c"))
    right = (logits.argmax(-1) == labels).sum() / (labels != 255).sum()
    assert scores["final"]["accuracy"] == pytest.approx(right)


def test_evaluation_needs_no_randomness(trainer):
    state = trainer.state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    image = jnp.ones((2, SIZE, SIZE, 1))
    forward = jax.jit(lambda: models.forward(trainer.model, variables, image))
    logits, out = forward()
    assert_equal(logits, forward()[0])
    assert list(losses.named_outputs(logits, out)) == ["final"]
