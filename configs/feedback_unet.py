"""Feedback U-Net with everything its paper compares: rounds, ConvLSTM placement, recurrent layers.

dataset=sstem,split=random|sections,recipe=modern|paper; layout=none (without ConvLSTM),
paper6_levels, code10, a, abde, ...; unit=convlstm|rcl_shared|rcl_separate; carry=false: the
ConvLSTMs start anew in each round, as in the released code; rounds=3; connection=self: feedback
attention too.
"""

from configs import common


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="sstem",
        split=("random", "sections"),
        recipe=("modern", "paper"),
        unit=("convlstm", "rcl_shared", "rcl_separate"),
        layout="paper6_levels",
        carry=True,
        connection="none",
        rounds=2,
        degrade=("none", "noise", "contrast", "blur"),
        fold=0,
        seed=0,
    )
    config = common.start("feedback_unet", args)
    config.model = common.model(
        "feedback_unet",
        unit=args.unit,
        layout=args.layout,
        carry_state=args.carry,
        connection=args.connection,
        rounds=args.rounds,
    )
    common.use_split(config, args.split, args.fold)
    common.use_recipe(config, args.recipe)
    weights = (common.EARLIER_ROUNDS,) * (args.rounds - 1) + (1.0,)
    with config.unlocked():
        kinds = config.loss.terms.final.to_dict()
        config.loss.terms = dict(rounds=dict.fromkeys(kinds, weights))
    return config
