"""Normalization by round against flax's own, one per round."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from feedseg.models.feedback.round_norm import RoundNorm

ROUNDS, SETTINGS = 3, dict(momentum=0.8, epsilon=1e-3)


def inputs() -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(t, t + 1, (4, 5, 6, 2)), jnp.float32) for t in range(ROUNDS)]


def run(mode: str, traced: bool) -> tuple[list, dict, dict]:
    """Outputs in training, then in evaluation, and the statistics, of rounds 0, 1, 2."""
    layer = RoundNorm(ROUNDS, mode, **SETTINGS)
    variables = layer.init(jax.random.key(0), inputs()[0], train=False)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), variables["params"])
    stats, trained = variables["batch_stats"], []
    for t, x in enumerate(inputs()):
        index = jnp.int32(t) if traced else t
        y, changed = layer.apply(
            {"params": params, "batch_stats": stats}, x, index, train=True, mutable=["batch_stats"]
        )
        stats = changed["batch_stats"]
        trained.append(y)
    everything = {"params": params, "batch_stats": stats}
    evaluated = [layer.apply(everything, x, t, train=False) for t, x in enumerate(inputs())]
    return trained + evaluated, params, stats


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("mode", ["separate", "stats_only", "shared"])
def test_it_is_flax_batch_norm_of_each_round(mode, traced):
    found, params, stats = run(mode, traced)
    wanted, evaluated = [], []
    layer = nn.BatchNorm(**SETTINGS)
    kept = [layer.init(jax.random.key(0), inputs()[0], use_running_average=True)["batch_stats"]]
    kept *= ROUNDS
    for t, x in enumerate(inputs()):
        own = {k: v[t] if mode == "separate" else v for k, v in params.items()}
        at = 0 if mode == "shared" else t
        y, changed = layer.apply(
            {"params": own, "batch_stats": kept[at]},
            x,
            use_running_average=False,
            mutable=["batch_stats"],
        )
        kept[at] = changed["batch_stats"]
        wanted.append(y)
    for t, x in enumerate(inputs()):
        own = {k: v[t] if mode == "separate" else v for k, v in params.items()}
        at = 0 if mode == "shared" else t
        evaluated.append(
            layer.apply({"params": own, "batch_stats": kept[at]}, x, use_running_average=True)
        )
    for y, y_wanted in zip(found, wanted + evaluated, strict=True):
        np.testing.assert_allclose(y, y_wanted, atol=2e-6)
    for name in ("mean", "var"):
        rows = [k[name] for k in kept]
        np.testing.assert_allclose(
            stats[name], rows[0] if mode == "shared" else np.stack(rows), atol=1e-6
        )


def test_bfloat16_keeps_float32_statistics():
    layer = RoundNorm(1, "shared", **SETTINGS)
    x = inputs()[0].astype(jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), x, train=True)
    assert y.dtype == jnp.bfloat16
    assert variables["batch_stats"]["mean"].dtype == jnp.float32


def test_unknown_mode():
    with pytest.raises(ValueError, match="bn_rounds='both': choose separate, stats_only, shared"):
        RoundNorm(1, "both", **SETTINGS).init(jax.random.key(0), inputs()[0], train=False)
