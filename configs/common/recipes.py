"""How networks are trained: the modern recipe and that of Feedback U-Net."""

from ml_collections import ConfigDict

from feedseg import datasets

EARLIER_ROUNDS = 0.5  # weight of their losses beside the last round's, Feedback U-Net Eq. 2


def use_recipe(config: ConfigDict, recipe: str) -> None:
    """How to train: `modern`, the best known here, or `paper`, that of Feedback U-Net (2020).

    modern: cross-entropy + Dice, rotations and mirrors, Adam with a cosine schedule.
    paper: section 4.2: cross-entropy with class weights, Adam 1e-4, 1500 epochs.
    """
    if recipe == "paper":
        config.optimizer.update(learning_rate=1e-4, epsilon=1e-7)
        config.loss.class_weight = "balanced"
        config.train.update(epochs=1500, batch_size=16)
        config.update(datasets.protocol(config.data.name, "paper"))
        return
    config.loss.terms.final = dict(cross_entropy=1.0, dice=1.0)
    for key, value in (("dropout", 0.0), ("bn_momentum", 0.9)):  # with dropout 0.5 it underfits
        if key in config.model:
            config.model[key] = value
    config.augment.dihedral = True
    config.evaluate.dihedral = True
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup_epochs=1.0)
    config.train.update(epochs=60, batch_size=8)
