"""AEP + AWEL and its baselines on any data set: the recipe of AEP (2024), section 4.

dataset=isbi2012,degrade=noise,fold=0,seed=0; model=aep|net2|kato3|classic; ensemble=learned|fixed|
stacked|single (AEP with AWEL, with weights of 1, without AWEL in two readings); filter= one of the
classical filters of Table 3; second=feedback_unet|feedback_attention|unet: another network 2;
source=output|softmax|argmax: of network 1's output as filters (Table 6); multiplier=2: filters per
class (Fig. 12); recipe=modern: the best training known here instead of the paper's.
"""

from configs import common
from feedseg import datasets

BASELINES = {
    "net2": common.model("aep_net"),
    "kato3": common.model("kato_unet"),
    "classic": common.model(
        "unet",
        filters=(64, 128, 256, 512, 1024),
        dropout=0.0,
        conv_bias=False,
        bn_momentum=0.9,
        bn_epsilon=1e-5,
        initializer="torch",
    ),
}
SECOND = ("", "feedback_unet", "feedback_attention", "unet")
ENSEMBLES = ("learned", "fixed", "stacked", "single")


def network(config, args) -> None:
    """Network and the loss of Eq. 4: one cross-entropy per map that is not the final one.

    Rounds before the last of a network 2 that is a Feedback U-Net count half, as in its own paper.
    """
    model, second = args.model, args.second
    if model != "aep":
        if second:
            raise ValueError(f"second={second} is a network 2 of model=aep, not of model={model}")
        if args.source or args.multiplier:
            raise ValueError(f"source and multiplier are of model=aep, not of model={model}")
        config.model = BASELINES[model]
        return
    network2 = common.model(second) if second else dict(name="own")
    config.model = common.model("aep", ensemble=args.ensemble, network2=network2)
    for key in ("source", "multiplier"):
        config.model[key] = getattr(args, key) or config.model[key]
    awel = args.ensemble in ("learned", "fixed")
    with config.unlocked():
        terms = config.loss.terms
        terms["members" if awel else "first"] = dict(cross_entropy=1.0)
        if second == "feedback_unet" and awel:
            terms.member_rounds = dict(cross_entropy=common.EARLIER_ROUNDS)
        elif second == "feedback_unet":
            earlier = (common.EARLIER_ROUNDS,) * (network2["rounds"] - 1)
            terms.rounds = dict(cross_entropy=(*earlier, 0.0))  # the last is the final one


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="isbi2012",
        model=("aep", *BASELINES),
        ensemble=ENSEMBLES,
        second=SECOND,
        degrade=("none", "noise", "contrast", "blur"),
        filter="none",
        source=("", "output", "softmax", "argmax"),
        multiplier=0,
        recipe=("", "modern"),
        fold=0,
        seed=0,
    )
    config = common.start("aep", args)
    config.data.filter = args.filter
    config.update(datasets.protocol(args.dataset, "aep"))
    config.split.fold = args.fold
    network(config, args)
    if args.recipe:
        common.use_recipe(config, args.recipe)
    config.evaluate.membrane = datasets.border_class(args.dataset)
    return config
