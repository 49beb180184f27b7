"""Schedules and first updates against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from feedseg.runtime.errors import UserError
from feedseg.training import optimizer


def options(**changes):
    config = common.base().optimizer
    config.update(learning_rate=0.1, **changes)
    return config


def rates(steps, **changes):
    schedule = optimizer.schedule(options(**changes), steps_per_epoch=4, epochs=5)
    return [float(schedule(step)) for step in steps]


def run(gradients, start=1.0, **changes):
    """Values of one parameter after each update."""
    config = options(**changes)
    tx = optimizer.build(config, optimizer.schedule(config, 4, 5))
    params, values = jnp.asarray(start), []
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        values.append(params)
    return np.asarray(values)


def test_constant():
    assert rates([0, 7, 19]) == pytest.approx([0.1] * 3)


def test_cosine_ends_at_zero():
    assert rates([0, 10, 20], schedule="cosine") == pytest.approx([0.1, 0.05, 0.0], abs=1e-8)


@pytest.mark.parametrize("schedule, middle, end", [("constant", 0.1, 0.1), ("cosine", 0.05, 0.0)])
def test_warm_up_is_linear_and_the_rest_ends_with_the_run(schedule, middle, end):
    found = rates([0, 1, 4, 12, 20], schedule=schedule, warmup_epochs=1.0)
    assert found == pytest.approx([0.0, 0.025, 0.1, middle, end], abs=1e-8)


def test_warm_up_of_half_an_epoch():
    assert rates([0, 1, 2, 3], warmup_epochs=0.5) == pytest.approx([0, 0.05, 0.1, 0.1])


def test_adam_starts_with_the_sign_of_the_gradient():
    # to 1e-5: 1 - beta2 has few digits in float32
    assert run([4.0]) == pytest.approx([0.9], abs=1e-6)
    second = 0.9 - 0.1 * (0.9 * 4 + 2) / 1.9 / np.sqrt((0.999 * 16 + 4) / 1.999)
    assert run([4.0, 2.0])[1] == pytest.approx(second, abs=1e-5)
    # betas and epsilon are the config's
    assert run([4.0], epsilon=4.0) == pytest.approx([0.95], abs=1e-6)
    second = 0.9 - 0.1 * (0.5 * 4 + 2) / 1.5 / np.sqrt((0.5 * 16 + 4) / 1.5)
    assert run([4.0, 2.0], beta1=0.5, beta2=0.5)[1] == pytest.approx(second, abs=1e-5)


def test_adamw_decays_the_parameters():
    assert run([4.0], start=2.0, name="adamw", weight_decay=0.5) == pytest.approx([1.8], abs=1e-6)


def test_sgd_with_and_without_momentum():
    assert run([4.0, 2.0], name="sgd") == pytest.approx([0.6, 0.4])
    assert run([4.0, 2.0], name="sgd", momentum=0.9) == pytest.approx([0.6, 0.6 - 0.1 * 5.6])


def test_the_schedule_is_used():
    assert run([4.0, 4.0], name="sgd", warmup_epochs=1.0) == pytest.approx([1.0, 0.9])


def test_clipping_uses_the_global_norm():
    config = options(name="sgd", clip_norm=1.0)
    tx = optimizer.build(config, optimizer.schedule(config, 4, 5))
    params = {"a": 0.0, "b": 0.0}
    for scale, expected in ((1.0, (-0.06, -0.08)), (0.1, (-0.03, -0.04))):
        gradient = {"a": jnp.float32(3 * scale), "b": jnp.float32(4 * scale)}
        updates, _ = tx.update(gradient, tx.init(params), params)
        assert (float(updates["a"]), float(updates["b"])) == pytest.approx(expected)


WRONG = [
    (dict(name="adm"), r"optimizer\.name='adm': choose from adam, adamw, sgd"),
    (dict(schedule="step"), r"optimizer\.schedule='step': choose from constant, cosine"),
    (dict(momentum=0.9), r"optimizer\.momentum has no effect with adam"),
    (dict(weight_decay=0.1), r"optimizer\.weight_decay has no effect with adam"),
    (dict(name="adamw", momentum=0.9), r"optimizer\.momentum has no effect with adamw"),
    (dict(name="sgd", weight_decay=0.1), r"optimizer\.weight_decay has no effect with sgd"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        run([1.0], **changes)
