"""Feedback attention with everything its paper compares: connections and where they lead to.

dataset=sstem,split=random|sections,recipe=modern|paper; connection=self|source_target|add|conv1x1|
se|light; location=one_conv|two_conv; width=8|64 channels at the top; kv_pool=2 or 4: keys and
values pooled, for small machines.
"""

from configs import common


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="sstem",
        split=("random", "sections"),
        recipe=("modern", "paper"),
        connection=("self", "source_target", "add", "conv1x1", "se", "light"),
        location=("two_conv", "one_conv"),
        width=8,
        kv_pool=1,
        degrade=("none", "noise", "contrast", "blur"),
        fold=0,
        seed=0,
    )
    config = common.start("feedback_attention", args)
    config.model = common.model(
        "feedback_attention",
        connection=args.connection,
        location=args.location,
        filters=tuple(args.width * 2**level for level in range(5)),
        kv_pool=args.kv_pool,
    )
    common.use_split(config, args.split, args.fold)
    common.use_recipe(config, args.recipe)
    config.loss.class_weight = "none"  # the paper names no class weights
    return config
