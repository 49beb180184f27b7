"""The plain U-Net 8-16-32-64-128 with a modern recipe: cross-entropy + Dice, dihedral, cosine.

split=random: 192/48/80 crops of ssTEM at random; split=sections: rotated by section, fold 0-4.
"""

from configs import common


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="sstem",
        split=("random", "sections"),
        degrade=("none", "noise", "contrast", "blur"),
        fold=0,
        seed=0,
    )
    config = common.start("unet", args)
    common.use_split(config, args.split, args.fold)
    common.use_recipe(config, "modern")
    return config
