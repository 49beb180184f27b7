"""Every configuration key, its default and its unit; those of a network stand in its own file."""

from ml_collections import ConfigDict

from feedseg import models


def base() -> ConfigDict:
    """All keys with their defaults; locked, so that a misspelt key is an error in a config file."""
    return ConfigDict(
        dict(
            experiment="",  # file name of the config, for the run directory
            run_name="",  # from the arguments after the colon
            seed=0,  # initial parameters, order, augmentation and dropout
            data_dir="",  # folder with the data sets; empty: environment FEEDSEG_DATA
            data=dict(
                name="synthetic",  # a file of feedseg/datasets
                crop_size=256,  # px; 0: no crops, all images padded to one size
                truth="masks",  # which ground truth; the data set's file lists its choices
                channels="as_is",  # as_is | grey
                degrade="none",  # none | noise | contrast | blur
                degrade_seed=0,  # pseudo low quality is made once with this seed
                filter="none",  # none | median3 | median9 | gaussian3 | ... | frangi
                normalization="dtype_range",  # dtype_range | image_percentile (of each channel
                # where they are no color) | channel_percentile
                percentiles=(1.0, 99.8),  # for the last two, in percent
                dihedral_copies=False,  # store 8 rotated and mirrored copies of every item
                classes=(),  # folder: names of the classes, in order of their ids
                foreground=(),  # names of classes that together become one; the others: background
                mask_values=(),  # gray values in [0, 1] of the classes as they were, for the loss
                # mask_cross_entropy; (): none
                border_class="",  # class between the cells, for border_cross_entropy; empty: none
                border_weight=10.0,  # w0
                border_sigma_px=5.0,  # sigma
                axes="",  # folder: of TIFF and .npy files that state none: YXC, CYX, PYX, ...
                interpret="auto",  # folder: auto | stored | displayed, see feedseg/io/reading.py
                fill_missing=False,  # folder: chunks of an OME-Zarr without a file: its fill value
                label_map="",  # folder: "0:0,255:1" from gray value to class id
                synthetic_count=60,  # images
                synthetic_size=256,  # px
                synthetic_classes=3,  # 3: cytoplasm, membrane, nucleus; 2: background, membrane
                synthetic_seed=0,
            ),
            split=dict(
                scheme="thirds",  # thirds | random | rotate | disjoint | ordered | given |
                # auto: given where the data set fixes its parts, else thirds
                fold=0,
                folds=3,
                counts=(0, 0, 0),  # train, val, test: items (random), source images (others)
                group_by_source=False,  # keep the items of one image in one part
                group="",  # folder: pattern (regular expression) for file names whose images
                # belong together, such as a patient or a well: "(P[0-9]+)_"; empty: by file
                test_augmented=True,  # keep dihedral copies in val and test
                seed=0,  # of the permutation, the same for all runs of a table
            ),
            augment=dict(
                dihedral=False,  # one of 8 rotations and mirrors
                rotate_deg=0.0,  # largest rotation, degrees, uniform in both directions
                shift_px=0.0,  # largest shift, px, uniform in both directions
                elastic_sigma_px=0.0,  # std of the displacements of a 3x3 grid, px; 0: off
                grey_offset=0.0,  # largest added gray value, in [0, 1] units
                grey_gain=0.0,  # largest relative change of contrast
                noise_sigma=0.0,  # std of added Gaussian noise, in [0, 1] units
            ),
            model=models.defaults("unet"),
            loss=dict(
                # weight per named output and kind; outputs stacked along their first axis
                # (members, rounds, member_rounds) take one weight, or a tuple with one per entry
                terms=dict(final=dict(cross_entropy=1.0)),
                class_weight="none",  # none | balanced | median | sqrt
            ),
            optimizer=dict(
                name="adam",  # adam | adamw | sgd
                learning_rate=1e-3,
                schedule="constant",  # constant | cosine (to 0 at the last step)
                warmup_epochs=0.0,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-8,
                momentum=0.0,  # sgd
                weight_decay=0.0,  # adamw
                clip_norm=0.0,  # largest global gradient norm; 0: off
            ),
            train=dict(
                epochs=300,
                batch_size=16,  # images over all devices
                eval_batch_size=16,
                ema_decay=0.0,  # moving average of the variables, which is evaluated; 0: none
                compute_dtype="float32",  # float32 | bfloat16 (parameters stay float32)
                save_every_epochs=1,
                pretrained="",  # saunet: file with DenseNet-121's ImageNet weights (see
                # feedseg/training/pretrained.py); empty: random numbers
            ),
            evaluate=dict(
                dihedral=False,  # score the mean of 8 rotations and mirrors too, as `dihedral`
                rotations=0,  # score the mean of so many rotations by equal angles; 0: none
                membrane="",  # class whose borders get Rand and information scores; empty: none
            ),
            runtime=dict(  # where and how it runs; never part of what a run is
                devices=0,  # number used; 0: all
                require_gpu=False,  # refuse to train on the CPU
                steps_per_dispatch=1,  # training steps in one program; 0: an epoch
                together="copies",  # several runs as one program: copies | vmap
                progress=True,
            ),
        )
    ).lock()
