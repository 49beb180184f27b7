"""AEP + AWEL and its baselines on any data set: the recipe of AEP (2024), section 4.

dataset=isbi2012,degrade=noise,fold=0,seed=0; model=aep|net2|kato3|classic; ensemble=learned|fixed|
stacked|single (AEP with AWEL, with weights of 1, without AWEL in two readings); filter= one of the
classical filters of Table 3; second=feedback_unet|feedback_attention|unet: another network 2.
"""

from configs import common

SPLITS = {  # A9: thirds of the crops; five disjoint folds of 10 images for the mouse liver
    "mouse_liver": dict(scheme="rotate", folds=5, counts=(35, 5, 10)),
    "sstem": dict(scheme="rotate", folds=5, counts=(12, 3, 5)),
}
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


def network(config, model: str, ensemble: str, second: str) -> None:
    """Network and the loss of Eq. 4: one cross-entropy per map that is not the final one.

    Rounds before the last of a network 2 that is a Feedback U-Net count half, as in its own paper.
    """
    if model != "aep":
        if second:
            raise ValueError(f"second={second} is a network 2 of model=aep, not of model={model}")
        config.model = BASELINES[model]
        return
    network2 = common.model(second) if second else dict(name="own")
    config.model = common.model("aep", ensemble=ensemble, network2=network2)
    awel = ensemble in ("learned", "fixed")
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
        fold=0,
        seed=0,
    )
    config = common.start("aep", args)
    config.data.filter = args.filter
    config.split.update(SPLITS.get(args.dataset, {}))
    config.split.fold = args.fold
    network(config, args.model, args.ensemble, args.second)
    if args.dataset in common.MEMBRANE:
        config.evaluate.membrane = "membrane"
    return config
