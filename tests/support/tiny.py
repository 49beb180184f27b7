"""The smallest configuration that uses everything a run has, for tests: seconds to train.

Twelve synthetic images of 32 px, 8 of them for training: 3 epochs of 4 steps of a U-Net with
nothing but its bottom. Dropout and augmentation are on, so that a run which mixes up its random
numbers is noticed, and so are the moving averages.
`--config tests/support/tiny.py` gives the same from a command line.
"""

from pathlib import Path

from configs import common

ROOT = Path(__file__).parents[2]
STEPS_PER_EPOCH, EPOCHS = 4, 3
STEPS = STEPS_PER_EPOCH * EPOCHS


def get_config(arg=None, **overrides):
    """overrides: values by dotted key with `__` for the dot, e.g. `train__epochs=1`."""
    config = common.base()
    config.experiment = config.run_name = "tiny"
    config.data.update(synthetic_count=12, synthetic_size=32, crop_size=32)
    config.model.update(filters=(4,))
    config.augment.update(dihedral=True, grey_offset=0.1)
    config.optimizer.learning_rate = 1e-2
    config.train.update(epochs=EPOCHS, batch_size=2, eval_batch_size=4, ema_decay=0.5)
    config.runtime.update(devices=1, progress=False)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config
