"""Every network the papers compare with, on any data set, by one recipe.

model=unet|ru_net|r2u_net|unet_plus_plus|attention_unet|unet3plus|saunet|sa_unet|aep_net|kato_unet,
or any other file of feedseg/models;
form=: another form of unet_plus_plus (keras, zju) or attention_unet (oktay); deep_supervision=true;
width=16: channels of the top level, doubled by each level, instead of the network's own;
recipe=modern|paper|aep: the best known here, that of Feedback U-Net (2020) or of AEP (2024);
protocol=aep: AEP's folds where they differ.
"""

from configs import common
from feedseg import datasets, models

WIDE = tuple(64 * 2**level for level in range(5))
TORCH = dict(dropout=0.0, bn_momentum=0.9, bn_epsilon=1e-5, initializer="torch")
OTHER_CONFIGS = ("aep", "blood_unet", "feedback_attention", "feedback_unet", "unet_original")
NETWORKS = {"unet": common.model("unet")} | {
    name: common.model(name) for name in models.names() if name not in OTHER_CONFIGS
}
NETWORKS["r2u_net"] = common.model("ru_net", filters=WIDE, up="nearest", residual=True, **TORCH)


def network(config, args) -> None:
    """The network in its form and width, and the loss of its further outputs."""
    config.model = NETWORKS[args.model]
    for key, value in (("form", args.form), ("deep_supervision", args.deep_supervision)):
        if not value:
            continue
        if key not in config.model:
            raise ValueError(f"{key}={value}: {args.model} has no {key}")
        config.model[key] = value
    if args.form == "keras":
        config.model.dropout = 0.5
    if args.form == "zju":
        config.model.filters = WIDE
    if args.width:
        if "filters" not in config.model:
            raise ValueError(f"width={args.width}: {args.model} has fixed widths")
        levels = len(config.model.filters) or 5  # attention_unet: those of its form
        config.model.filters = tuple(args.width * 2**level for level in range(levels))


def use_outputs(config, args) -> None:
    """Loss terms of what the network gives beside its result, by the kinds of the result's."""
    with config.unlocked():
        terms = config.loss.terms
        if args.deep_supervision and args.model != "attention_unet":  # it fuses its heads itself
            heads = len(config.model.filters) - (args.model == "unet_plus_plus")
            terms.heads = {kind: weight / heads for kind, weight in terms.final.items()}
            del terms["final"]  # a head or their mean
        if args.model == "saunet":
            terms.edge = dict(edge_cross_entropy=1.0)


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="isbi2012",
        split=("random", "sections"),
        model=tuple(NETWORKS),
        form="",
        deep_supervision=False,
        width=0,
        recipe=("modern", "paper", "aep"),
        protocol=("", "aep"),
        degrade=("none", "noise", "contrast", "blur"),
        fold=0,
        seed=0,
    )
    config = common.start("baseline", args)
    network(config, args)
    common.use_split(config, args.split, args.fold)
    if args.protocol == "aep":
        config.data.dihedral_copies = False
        config.update(datasets.protocol(args.dataset, "aep"))
    if args.recipe != "aep":  # whose recipe is that of configs/common/keys.py
        common.use_recipe(config, args.recipe)
    use_outputs(config, args)
    config.evaluate.membrane = datasets.border_class(args.dataset)
    return config
