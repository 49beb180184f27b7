"""Every configuration key, its default, its unit and what it may be.

Those of a network stand in its own file, what they may be in `feedseg/models/layers/arguments.py`.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from feedseg import models
from feedseg.runtime.allowed import (
    Choice,
    Each,
    Fields,
    Listed,
    Number,
    Table,
    Text,
    above,
    at_least,
    fraction,
    whole,
)
from feedseg.runtime.errors import UserError

SIDE = 2**16  # px
SEED = whole(0, 2**31 - 1)
NAMES = Listed(Text(200, least=1), 0, 255)  # of classes
GREYS = Listed(at_least(0, 1), 0, 255)
LIMITS = Listed(Number(), 2, 2)
MANY = 10**6  # images, steps or epochs at most
FOLDS = 1000
COUNTS = Listed(whole(0, MANY), 3, 3)
LOGGERS = Listed(Text(50, least=1), 0, 10)
TOGETHER = Choice(("copies", "vmap"))
DTYPES = Choice(("float32", "bfloat16"))
TERMS = Table(Table(Each(at_least(0))))


PARTS = ("data", "split", "augment", "model", "loss", "optimizer", "train", "evaluate", "runtime")


class Key(NamedTuple):
    """A default and what else the value may be (`feedseg.runtime.allowed`)."""

    default: Any
    allowed: Any


def base() -> ConfigDict:
    """All keys with their defaults; locked, so that a misspelt key is an error in a config file."""
    return ConfigDict(_defaults(_keys())).lock()


def allowed() -> dict[str, Any]:
    """What the values may be, by dotted key, where it is not decided by their use."""
    return _allowed(_keys(), "")


def check(config: dict) -> None:
    """Raises UserError naming the first key whose value is not allowed; others are passed over."""
    for key, spec in {**dict.fromkeys(PARTS, Fields({})), **allowed()}.items():
        *parts, last = key.split(".")
        part = config
        for name in parts:
            part = part[name]
        if (last in part or key in PARTS) and (problem := spec.problem(part.get(last), key)):
            raise UserError(problem)
    models.check(config["model"])


def _defaults(keys: dict) -> dict:
    return {
        name: _defaults(value) if isinstance(value, dict) else getattr(value, "default", value)
        for name, value in keys.items()
    }


def _allowed(keys: dict, prefix: str) -> dict[str, Any]:
    found = {}
    for name, value in keys.items():
        if isinstance(value, Key):
            found[f"{prefix}{name}"] = value.allowed
        elif isinstance(value, dict):
            found |= _allowed(value, f"{prefix}{name}.")
    return found


def _keys() -> dict:
    return dict(
        experiment="",  # file name of the config, for the run directory
        run_name="",  # from the arguments after the colon
        seed=Key(0, SEED),  # initial parameters, order, augmentation and dropout
        data_dir="",  # folder with the data sets; empty: environment FEEDSEG_DATA
        data=dict(
            name="synthetic",  # a file of feedseg/datasets
            crop_size=Key(256, whole(0, SIDE)),  # px; 0: no crops, all images padded to one size
            crops=Key("grid", Choice(("grid", "random"))),  # grid: cut once, without overlap;
            # random: drawn anew for every step of training, whole images tiled in validation
            class_share=Key(1 / 3, fraction()),  # of random crops that hold a class drawn with
            # equal chances; the others lie anywhere
            truth="masks",  # which ground truth; the data set's file lists its choices
            channels="as_is",  # as_is | grey; folder: numbers from 1 and names too: "2", "DAPI,3"
            degrade="none",  # none | noise | contrast | blur
            degrade_seed=Key(0, SEED),  # pseudo low quality is made once with this seed
            filter="none",  # none | median3 | median9 | gaussian3 | ... | frangi
            normalization="dtype_range",  # dtype_range | image_percentile (of each channel
            # where they are no color) | channel_percentile
            percentiles=Key((1.0, 99.8), LIMITS),  # for the last two, in percent
            dihedral_copies=False,  # store 8 rotated and mirrored copies of every item
            classes=Key((), NAMES),  # folder: names of the classes, in order of their ids
            foreground=Key((), NAMES),  # classes that together become one; the others: background
            mask_values=Key((), GREYS),  # gray values in [0, 1] of the classes as they were, for
            # the loss mask_cross_entropy; (): none
            border_class="",  # class between the cells, for border_cross_entropy; empty: none
            border_weight=Key(10.0, at_least(0)),  # w0
            border_sigma_px=Key(5.0, above(0)),  # sigma
            axes="",  # folder: of TIFF and .npy files that state none: YXC, CYX, PYX, ...
            interpret="auto",  # folder: auto | stored | displayed, see feedseg/io/reading.py
            fill_missing=False,  # folder: chunks of an OME-Zarr without a file: its fill value
            series="",  # folder: image of files that hold several, by number from 1 or by name
            z="",  # folder: slices of stacks, counted from 1: "3", "2-5", or "max"
            channel_files="",  # folder: endings of the files of each channel: "_0000,_0001"
            pixel_size=Key(0.0, at_least(0)),  # folder: µm; all images are brought to pixels of
            # this size; 0: as they are
            label_map="",  # folder: "0:0,255:1" from gray value to class id
            synthetic_count=Key(60, whole(1, MANY)),  # images
            synthetic_size=Key(256, whole(16, SIDE)),  # px
            synthetic_classes=Key(3, Choice((2, 3))),  # 3: cytoplasm, membrane, nucleus;
            # 2: background, membrane
            synthetic_seed=Key(0, SEED),
        ),
        split=dict(
            scheme="thirds",  # thirds | random | rotate | disjoint | ordered | given |
            # auto: given where the data set fixes its parts, else thirds
            fold=Key(0, whole(0, FOLDS)),
            folds=Key(3, whole(1, FOLDS)),
            counts=Key((0, 0, 0), COUNTS),  # train, val, test: items (random), source images
            # (others)
            group_by_source=False,  # keep the items of one image in one part
            group="",  # folder: pattern (regular expression) for file names whose images
            # belong together, such as a patient or a well: "(P[0-9]+)_"; empty: by file
            test_augmented=True,  # keep dihedral copies in val and test
            seed=Key(0, SEED),  # of the permutation, the same for all runs of a table
        ),
        augment=dict(
            dihedral=False,  # one of 8 rotations and mirrors
            rotate_deg=Key(0.0, at_least(0, 180)),  # largest rotation, degrees, uniform in both
            # directions
            scale=Key(0.0, at_least(0, 4)),  # s: images become 1 / (1 + s) to 1 + s times as large
            shift_px=Key(0.0, at_least(0)),  # largest shift, px, uniform in both directions
            elastic_sigma_px=Key(0.0, at_least(0)),  # std of the displacements of a 3x3 grid, px;
            # 0: off
            grey_offset=Key(0.0, at_least(0, 1)),  # largest added gray value, in [0, 1] units
            grey_gain=Key(0.0, at_least(0, 1)),  # largest relative change of contrast
            noise_sigma=Key(0.0, at_least(0)),  # std of added Gaussian noise, in [0, 1] units
        ),
        model=models.defaults("unet"),
        loss=dict(
            # weight per named output and kind; outputs stacked along their first axis
            # (members, rounds, member_rounds) take one weight, or a tuple with one per entry
            terms=Key(dict(final=dict(cross_entropy=1.0)), TERMS),
            class_weight="none",  # none | balanced | median | sqrt
        ),
        optimizer=dict(
            name="adam",  # adam | adamw | sgd
            learning_rate=Key(1e-3, above(0)),
            schedule="constant",  # constant | cosine (to 0 at the last step)
            warmup_epochs=Key(0.0, at_least(0)),
            beta1=Key(0.9, fraction()),
            beta2=Key(0.999, fraction()),
            epsilon=Key(1e-8, above(0)),
            momentum=Key(0.0, fraction()),  # sgd
            weight_decay=Key(0.0, at_least(0)),  # adamw
            clip_norm=Key(0.0, at_least(0)),  # largest global gradient norm; 0: off
        ),
        train=dict(
            epochs=Key(300, whole(1, MANY)),
            batch_size=Key(16, whole(1, MANY)),  # images over all devices
            eval_batch_size=Key(16, whole(1, MANY)),
            ema_decay=Key(0.0, fraction()),  # moving average of the variables, which is evaluated;
            # 0: none
            compute_dtype=Key("float32", DTYPES),  # parameters stay float32
            patience=Key(0, whole(0, MANY)),  # epochs without a higher validation mean IoU after
            # which the run ends; 0: none ends it
            save_every_epochs=Key(1, whole(1, MANY)),
            start="",  # a run, model file or name of `feedseg models` to begin with; empty: random
            # numbers
            pretrained="",  # saunet: file with DenseNet-121's ImageNet weights (see
            # feedseg/training/pretrained.py); empty: random numbers
        ),
        evaluate=dict(
            dihedral=False,  # score the mean of 8 rotations and mirrors too, as `dihedral`
            rotations=Key(0, whole(0, 360)),  # score the mean of so many rotations by equal
            # angles; 0: none
            membrane="",  # class whose borders get Rand and information scores; empty: none
        ),
        runtime=dict(  # where and how it runs; never part of what a run is
            devices=Key(0, whole(0, MANY)),  # number used; 0: all
            require_gpu=False,  # refuse to train on the CPU
            steps_per_dispatch=Key(1, whole(0, MANY)),  # training steps in one program; 0: an epoch
            together=Key("copies", TOGETHER),  # several runs as one program
            progress=True,
            loggers=Key((), LOGGERS),  # beside metrics.jsonl: csv, tensorboard, wandb, see
            # feedseg/runs/loggers
        ),
    )
