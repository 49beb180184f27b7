"""The configuration of tests/support/tiny.py with a feedback network.

Without a ConvLSTM, so that it compiles in seconds. Rounds that share their normalizations; class
probabilities and attention are fed back.
"""

from configs import common
from tests.support import tiny


def get_config(arg=None, **overrides):
    config = tiny.get_config(arg)
    config.run_name = "tiny_feedback"
    config.model = common.model(
        "feedback_unet",
        filters=(4,),
        layout="none",
        extra_conv=False,
        connection="self",
        bn_rounds="shared",
    )
    with config.unlocked():
        config.loss.terms = dict(rounds=dict(cross_entropy=(0.5, 1.0)))
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config
