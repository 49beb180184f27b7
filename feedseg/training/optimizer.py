"""The optimizer that a config describes, with its learning-rate schedule."""

import optax

from feedseg.runtime.errors import UserError


def schedule(config, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Learning rate of every step: linear warm-up, then constant or cosine to 0 at the end."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    rest = max(1, epochs * steps_per_epoch - warmup)
    kinds = {
        "constant": lambda: optax.constant_schedule(config.learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(config.learning_rate, rest),
    }
    if config.schedule not in kinds:
        raise UserError(f"optimizer.schedule={config.schedule!r}: choose from {', '.join(kinds)}")
    main = kinds[config.schedule]()
    if not warmup:
        return main
    start = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([start, main], [warmup])


def build(config, rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam, AdamW or SGD with momentum, after clipping the global norm where that is on."""
    kinds = {
        "adam": lambda: optax.adam(rate, config.beta1, config.beta2, config.epsilon),
        "adamw": lambda: optax.adamw(
            rate, config.beta1, config.beta2, config.epsilon, weight_decay=config.weight_decay
        ),
        "sgd": lambda: optax.sgd(rate, config.momentum or None),
    }
    if config.name not in kinds:
        raise UserError(f"optimizer.name={config.name!r}: choose from {', '.join(kinds)}")
    unused = {
        "adam": ("momentum", "weight_decay"),
        "adamw": ("momentum",),
        "sgd": ("weight_decay",),
    }
    for key in unused[config.name]:
        if config[key]:
            raise UserError(f"optimizer.{key} has no effect with {config.name}: set it to 0")
    if not config.clip_norm:
        return kinds[config.name]()
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), kinds[config.name]())
