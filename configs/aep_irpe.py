"""AEP + AWEL on human iRPE cells: AEP (2024), Table 2. `dataset=synthetic` runs it without data.

The synthetic form is a first look that fits in a few minutes on two CPU cores: 96 px images, small
batches, few epochs.
"""

from configs import aep, common


def get_config(arg=None):
    args = common.parse(
        arg,
        dataset=("irpe", "synthetic"),
        model=("aep", *aep.BASELINES),
        ensemble=aep.ENSEMBLES,
        fold=0,
        seed=0,
    )
    text = ",".join(f"{key}={value}" for key, value in vars(args).items())
    config = aep.get_config(text)
    config.experiment = "aep_irpe"
    config.run_name = common.run_name(args)
    if args.dataset == "synthetic":
        config.data.synthetic_size = 96
        config.data.crop_size = 96
        config.train.epochs = 18
        config.train.batch_size = 4
    return config
