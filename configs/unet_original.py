"""The original U-Net as it was: unpadded convolutions, weight map, elastic deformation, SGD.

dataset=isbi2012|dsb2018|wbc|...; border=: the class between the cells; width=64: channels of the
top level. Ronneberger et al. (2015), section 3: batches of one large image, momentum 0.99. The
learning rate and the number of epochs are not given there.
"""

from configs import common
from feedseg import datasets


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="isbi2012",
        split=("random", "sections"),
        border="",
        width=64,
        degrade=("none", "noise", "contrast", "blur"),
        fold=0,
        seed=0,
    )
    config = common.start("unet_original", args)
    filters = tuple(args.width * 2**level for level in range(5))
    config.model = common.model("unet_original", filters=filters)
    common.use_split(config, args.split, args.fold)
    config.data.border_class = args.border or datasets.border_class(args.dataset) or "background"
    config.loss.class_weight = "balanced"
    with config.unlocked():
        config.loss.terms = dict(final=dict(border_cross_entropy=1.0))
    config.augment.update(
        dihedral=True, rotate_deg=45.0, shift_px=10.0, elastic_sigma_px=10.0, grey_gain=0.1
    )
    config.optimizer.update(name="sgd", learning_rate=1e-3, momentum=0.99)
    config.train.update(epochs=100, batch_size=1)
    config.evaluate.rotations = 7
    config.evaluate.membrane = datasets.border_class(args.dataset)
    return config
