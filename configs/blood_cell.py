"""The blood-cell U-Net on white blood cells, trained on binarized or on gray masks.

mask=binary (its model 2); gray: the mask's own gray values, 0, 128 and 255 of 255; grey_inexact:
the same moved off 0 and 255 by one level, as interpolated or compressed masks are (its model 1);
foreground=cell|nucleus; split=80|90: percent of the images for training and validation; width=64.
Other data sets have two classes: dataset=isbi2012|dsb2018|folder|...
"""

from configs import common

MASKS = {  # gray values of background, cytoplasm, nucleus
    "binary": (0.0, 1.0, 1.0),
    "grey": (0.0, 128 / 255, 1.0),
    "grey_inexact": (1 / 255, 128 / 255, 254 / 255),
}
COUNTS = {"80": (216, 24, 60), "90": (243, 27, 30)}  # of 300 images; the text has 90 % and 20 %


def use_masks(config, dataset: str, mask: str, foreground: str) -> None:
    """The gray values that are trained on, and the classes that are scored."""
    values = MASKS[mask]
    if dataset != "wbc":
        if mask == "grey" or foreground != "cell":
            raise ValueError(f"mask={mask},foreground={foreground}: for dataset=wbc only")
        config.data.mask_values = (values[0], values[2])
        return
    if foreground == "nucleus":
        if mask != "binary":
            raise ValueError(f"mask={mask}: shows the whole cell; take foreground=cell")
        values = (0.0, 0.0, 1.0)
    config.data.mask_values = values
    config.data.foreground = ("nucleus",) if foreground == "nucleus" else ("cytoplasm", "nucleus")


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset="wbc",
        mask=tuple(MASKS),
        foreground=("cell", "nucleus"),
        split=tuple(COUNTS),
        width=64,
        extra_conv=True,
        fold=0,
        seed=0,
        degrade=("none", "noise", "contrast", "blur"),
    )
    config = common.start("blood_cell", args)
    use_masks(config, args.dataset, args.mask, args.foreground)
    config.data.channels = "grey"
    filters = tuple(args.width * 2**level for level in range(5))
    config.model = common.model("blood_unet", filters=filters, extra_conv=args.extra_conv)
    config.split.fold = args.fold
    if args.dataset == "wbc":
        config.split.update(scheme="random", counts=COUNTS[args.split], group_by_source=False)
    with config.unlocked():
        config.loss.terms = dict(final=dict(mask_cross_entropy=1.0))
    config.train.epochs = 50
    return config
