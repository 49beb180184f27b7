"""Every configuration key, its default and its unit. Experiments state only their differences.

A config file defines `get_config(arg)`; `parse` types and checks the part after the colon of
`--config configs/x.py:key=value,...`. A run's name follows from those arguments.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict

from feedseg import datasets
from feedseg.runtime.suggest import did_you_mean

# Arguments of each network, by its name. feedseg/models/NAME.py says what each one means.
MODELS = {
    "unet": dict(
        name="unet",
        filters=(8, 16, 32, 64, 128),  # channels per level, the last is the bottom
        dropout=0.5,  # rate after level 4 and the bottom
        extra_conv=False,  # one more convolution before the classifier
        conv_bias=True,  # bias of the convolutions that a normalisation follows
        bn_momentum=0.99,
        bn_epsilon=1e-3,
        initializer="keras",  # keras | torch
    ),
    "aep_net": dict(  # network 2 of AEP alone
        name="aep_net",
        penultimate=16,  # channels of the map before the classifier
        dropout=0.5,
        bn_momentum=0.9,
        bn_epsilon=1e-5,
    ),
    "aep": dict(
        name="aep",
        penultimate="n_filters",  # n_filters | 16 (released code: 16 channels, the first ones used)
        multiplier=1,  # filters per class
        source="penultimate",  # penultimate | output | softmax | argmax
        translate="code",  # code: sigmoid(x + relu f) | eq1: x + sigmoid(relu f)
        net2_bn="per_call",  # per_call | joint statistics over the filters
        ensemble="learned",  # learned | fixed | stacked | single (the last two: no AWEL)
        awel_input="logits",  # logits | probabilities
        awel_init="torch",  # torch: U(-1/sqrt S, 1/sqrt S) | mean: 1/S
        dropout=0.5,
        bn_momentum=0.9,
        bn_epsilon=1e-5,
        network2=dict(name="own"),  # or another network with all its arguments
    ),
    "kato_unet": dict(
        name="kato_unet",
        filters=(64, 128, 256, 512, 1024),
        bn_momentum=0.9,
        bn_epsilon=1e-5,
    ),
    "unet_plus_plus": dict(
        name="unet_plus_plus",
        form="torch",  # torch | keras (its authors' code) | zju (with UNet 3+)
        filters=(32, 64, 128, 256, 512),  # zju: (64, 128, 256, 512, 1024)
        dropout=0.0,  # rate after every ReLU; keras: 0.5
        deep_supervision=False,  # a classifier on every node of the top row
        bn_momentum=0.9,
        bn_epsilon=1e-5,
    ),
    "attention_unet": dict(
        name="attention_unet",
        form="lee",  # lee | oktay (its authors' code)
        filters=(),  # empty: lee (64, 128, 256, 512, 1024), oktay (16, 32, 64, 128, 256)
        gates=1,  # per skip; oktay: 1 | 2
        deep_supervision=False,  # oktay: a classifier on every decoder level
        bn_momentum=0.9,
        bn_epsilon=1e-5,
    ),
    "unet3plus": dict(
        name="unet3plus",
        filters=(64, 128, 256, 512, 1024),
        skip_channels=64,  # of each of the maps that a decoder level joins
        deep_supervision=False,  # a classifier on every decoder level and the bottom
        bn_momentum=0.9,
        bn_epsilon=1e-5,
    ),
    "saunet": dict(
        name="saunet",
        growth=32,  # DenseNet: channels that every layer adds
        blocks=(6, 12, 24, 16),  # DenseNet: layers of the four blocks
        shape_stream=(64, 32, 16, 8),  # channels of the edge stream
        decoder=(512, 256, 128, 64, 48, 32),  # four attention blocks and two layers on top
        canny_source="grey255",  # grey255 | as_released (image in [0, 1] as 8 bits: no edges)
        bn_momentum=0.9,
        bn_epsilon=1e-5,
        initializer="torch",  # torch | keras | he
    ),
    "sa_unet": dict(
        name="sa_unet",
        filters=(16, 32, 64, 128),
        keep=0.9,  # DropBlock: share of values kept
        block=7,  # DropBlock: side of the squares, px
        attention=True,  # spatial attention at the bottom
        bn_momentum=0.99,
        bn_epsilon=1e-3,
        initializer="keras",  # keras | torch | he
    ),
}

MODELS["ru_net"] = dict(
    name="ru_net",
    filters=(8, 16, 32, 64, 128),
    kernel="shared",  # shared | separate | unshared_per_step: weights of the passes (A6)
    t=2,  # passes after the first
    pass_norms="shared",  # shared | separate: normalisations of the passes
    residual=False,  # R2U-Net: add what enters the recurrent layers of a block
    up="deconv",  # deconv | nearest: 2x2 transposed, or nearest pixel and a 3x3 convolution
    dropout=0.5,
    conv_bias=True,
    bn_momentum=0.99,
    bn_epsilon=1e-3,
    initializer="keras",  # keras | torch
)
MODELS["unet_original"] = dict(
    name="unet_original",
    filters=(64, 128, 256, 512, 1024),
    dropout=0.5,
    up_activation=True,  # ReLU after the up-convolutions, as in the authors' Caffe network
    border="mirror",  # mirror: a result for every pixel | none: 92 px less on each side
)
MODELS["blood_unet"] = dict(
    name="blood_unet",
    filters=(64, 128, 256, 512, 1024),
    extra_conv=True,  # a third convolution before each pooling
    initializer="keras",  # keras | torch
)

EARLIER_ROUNDS = 0.5  # weight of their losses beside the last round's, Feedback U-Net Eq. 2

FEEDBACK = dict(
    filters=(8, 16, 32, 64, 128),
    dropout=0.5,
    extra_conv=True,
    conv_bias=True,
    bn_momentum=0.99,
    bn_epsilon=1e-3,
    bn_rounds="separate",  # separate | stats_only | shared: normalisations by round
    initializer="keras",  # keras | torch
    rounds=2,
    unroll=0,  # rounds written out in the compiled program, 0: all
    remat=False,  # compute rounds again for the gradient: less memory, a third more time
    feedback="probabilities",  # probabilities | image: what the next round sees
    first_input="copy",  # copy | zero_pad | separate_conv | concat
    round1_grad="flow",  # flow | stop: gradients through what is fed back
    unit="convlstm",  # convlstm | rcl_shared | rcl_separate
    layout="paper6_levels",  # none | paper6_levels | paper6_top | code10 | letters a...e
    carry_state=True,  # ConvLSTM states from round to round; False: zero at each start
    recurrent_activation="hard_sigmoid",  # hard_sigmoid | sigmoid
    unit_forget_bias=True,  # bias of the forget gates starts at 1
    peephole=False,  # weights of the image's size from the cell state to the gates
    rcl_t=2,  # recurrent convolutions: passes after the first
    rcl_pass_norms="shared",  # shared | separate: normalisations of the passes
    connection="none",  # none | self | source_target | add | conv1x1 | se | light
    location="two_conv",  # one_conv | two_conv: convolutions before the fed-back map joins
    qk_div=8,  # attention: queries and keys have 1/8 of the channels, at least 1
    v_div=2,  # attention: values have half of the channels
    kv_pool=1,  # attention: keys and values are maxima over squares, 1 | 2 | 4 px
    query_block=1024,  # attention: queries at once; memory is 4 bytes x this x keys
    output_norm=True,  # attention: normalise the output convolution
    light_convs=1,  # light attention: 1 | 2 convolutions
    light_residual=False,  # light attention: G + G M instead of G M
    se_biases=False,  # squeeze and excitation: biases of its two layers
    use_scale=True,  # connection: a learned factor that starts at 0
)
MODELS["feedback_unet"] = dict(name="feedback_unet", **FEEDBACK)
MODELS["feedback_attention"] = dict(
    FEEDBACK,
    name="feedback_attention",
    extra_conv=False,
    bn_rounds="shared",
    feedback="image",
    round1_grad="stop",
    layout="none",
    connection="self",
)


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
                normalization="dtype_range",  # dtype_range | image_percentile
                percentiles=(1.0, 99.8),  # for image_percentile, in percent
                dihedral_copies=False,  # store 8 rotated and mirrored copies of every item
                classes=(),  # folder: names of the classes, in order of their ids
                foreground=(),  # names of classes that together become one; the others: background
                mask_values=(),  # grey values in [0, 1] of the classes as they were, for the loss
                # mask_cross_entropy; (): none
                border_class="",  # class between the cells, for border_cross_entropy; empty: none
                border_weight=10.0,  # w0
                border_sigma_px=5.0,  # sigma
                label_map="",  # folder: "0:0,255:1" from grey value to class id
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
                test_augmented=True,  # keep dihedral copies in val and test
                seed=0,  # of the permutation, the same for all runs of a table
            ),
            augment=dict(
                dihedral=False,  # one of 8 rotations and mirrors
                rotate_deg=0.0,  # largest rotation, degrees, uniform in both directions
                shift_px=0.0,  # largest shift, px, uniform in both directions
                elastic_sigma_px=0.0,  # std of the displacements of a 3x3 grid, px; 0: off
                grey_offset=0.0,  # largest added grey value, in [0, 1] units
                grey_gain=0.0,  # largest relative change of contrast
                noise_sigma=0.0,  # std of added Gaussian noise, in [0, 1] units
            ),
            model=dict(MODELS["unet"]),
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


def model(name: str, **changes) -> dict:
    """Arguments of a network with some of them changed."""
    unknown = set(changes) - set(MODELS[name])
    if unknown:
        raise ValueError(
            f"network {name} takes {', '.join(MODELS[name])}, not {', '.join(sorted(unknown))}"
        )
    return {**MODELS[name], **changes}


def start(experiment: str, args: SimpleNamespace) -> ConfigDict:
    """All keys with what every experiment sets: names, seed, data set and degradation."""
    config = base()
    config.experiment = experiment
    config.run_name = run_name(args)
    config.seed = args.seed
    use_dataset(config, args.dataset)
    config.data.degrade = args.degrade
    return config


def use_dataset(config: ConfigDict, name: str) -> None:
    """Select a data set with the preparation that it needs."""
    config.data.name = name
    config.update(datasets.preparation(name))


def use_split(config: ConfigDict, split: str, fold: int) -> None:
    """Parts of the Feedback U-Net protocol where it has one, else the data set's own.

    split: `random` crops of ssTEM, or `sections`: fold k rotates over the source images (A9).
    """
    config.split.fold = fold
    if changes := datasets.protocol(config.data.name, split):
        config.update(changes)
        config.evaluate.membrane = datasets.border_class(config.data.name)


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


def parse(arg: str | None, **spec) -> SimpleNamespace:
    """Typed values of `key=value,key=value`, each typed like its default in `spec`.

    A default that is a tuple lists the choices, the first being the default.
    Raises ValueError naming the key and what it takes.
    """
    values = {
        key: (default[0] if isinstance(default, tuple) else default)
        for key, default in spec.items()
    }
    for item in filter(None, (arg or "").split(",")):
        key, _, text = item.partition("=")
        if key not in spec:
            hint = did_you_mean(key, spec)
            raise ValueError(
                f"config argument {key!r} is unknown{hint} It takes: {', '.join(spec)}."
            )
        values[key] = _typed(key, text, spec[key])
    return SimpleNamespace(**values)


def _typed(key, text, default):
    if isinstance(default, tuple):
        if text not in default:
            raise ValueError(f"config argument {key}={text!r}: choose one of {', '.join(default)}.")
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise ValueError(f"config argument {key}={text!r} is not of type {kind}.") from None


def run_name(args: SimpleNamespace) -> str:
    """Folder name of a run: its arguments in the order of their spec.

    `none`, empty ones and zeros (but for fold and seed) are left out.
    """
    parts = []
    for key, value in vars(args).items():
        if isinstance(value, bool):
            parts += [key] if value else []
        elif isinstance(value, int | float):
            parts += [f"{key}{value}"] if value or key in ("fold", "seed") else []
        elif value not in ("", "none"):
            parts.append(value)
    return "-".join(parts)
