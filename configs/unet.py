"""The plain U-Net 8-16-32-64-128 with a modern recipe: cross-entropy + Dice, dihedral, cosine.

split=random: 192/48/80 crops of ssTEM at random; split=sections: rotated by section (A9), fold 0-4.
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
    config = common.base()
    config.experiment = "unet"
    config.run_name = common.run_name(args)
    config.seed = args.seed
    common.use_dataset(config, args.dataset)
    config.data.degrade = args.degrade
    if args.dataset == "sstem":
        if args.split == "random":
            config.split.update(scheme="random", counts=(192, 48, 80))
        else:
            config.split.update(scheme="rotate", folds=5, counts=(12, 3, 5))
        config.evaluate.membrane = "membrane"
    config.split.fold = args.fold
    config.loss.terms.final = dict(cross_entropy=1.0, dice=1.0)
    config.model.update(dropout=0.0, bn_momentum=0.9)  # with dropout 0.5 it underfits
    config.augment.dihedral = True
    config.evaluate.dihedral = True
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup_epochs=1.0)
    config.train.update(epochs=60, batch_size=8)
    return config
