"""The methods of the published tables, each with its configuration.

feedseg/experiments/published names the methods of each table, its data sets, folds and seeds, which
`config_string` adds to a method's configuration; recipe=modern replaces the method's own recipe.
"""

import re
from typing import NamedTuple


class MethodConfig(NamedTuple):
    """A row: its configuration, changed keys, and the output that is scored."""

    config: str
    overrides: tuple[str, ...] = ()
    output: str = "final"


def _feedback(changes: str) -> MethodConfig:
    return MethodConfig(f"configs/feedback_unet.py:{changes},recipe=paper")


def _attention(changes: str, output: str = "final") -> MethodConfig:
    return MethodConfig(f"configs/feedback_attention.py:{changes},recipe=paper", output=output)


def _aep(changes: str) -> MethodConfig:
    return MethodConfig(f"configs/aep.py:{changes}")


def _baseline(changes: str, *overrides: str) -> MethodConfig:
    return MethodConfig(f"configs/baseline.py:{changes},recipe=paper", overrides)


def _compared(model: str) -> MethodConfig:
    return MethodConfig(f"configs/baseline.py:model={model},protocol=aep,recipe=aep")


FILTERS = ("median", "gaussian", "bilateral", "sobel")
METHODS = {
    "unet_fb": _baseline("model=unet"),
    "unet_fa": _baseline(
        "model=unet", "loss.class_weight=none"
    ),  # the paper names no class weights
    "ru_net_t2": _baseline("model=ru_net"),
    "feedback_unet_rcl": _feedback("unit=rcl_shared"),
    "feedback_unet_plain": _feedback("layout=none"),
    "feedback_unet_convlstm": _feedback("layout=paper6_levels"),
    **{f"feedback_unet_lstm_{at}": _feedback(f"layout={at}") for at in (*"abcde", "abde")},
    "feedback_attention_st": _attention("connection=source_target"),
    "feedback_attention_self": _attention("connection=self"),
    "feedback_attention_st_oneconv": _attention("connection=source_target,location=one_conv"),
    "feedback_attention_self_oneconv": _attention("connection=self,location=one_conv"),
    "feedback_attention_st_first": _attention("connection=source_target", "rounds/0"),
    "feedback_attention_self_first": _attention("connection=self", "rounds/0"),
    **{f"feedback_{kind}": _attention(f"connection={kind}") for kind in ("add", "conv1x1")},
    **{f"feedback_{kind}": _attention(f"connection={kind}") for kind in ("se", "light")},
    "unet_aep_baseline": _aep("model=net2"),  # the paper's "U-Net" row is network 2 alone
    "unetpp": _compared("unet_plus_plus"),
    "attention_unet": _compared("attention_unet"),
    "unet3p": _compared("unet3plus"),
    "saunet": _compared("saunet"),
    **{
        f"pre_{name}_{size}": _aep(f"model=net2,filter={name}{size}")
        for name in FILTERS
        for size in (3, 9)
    },
    "pre_frangi": _aep("model=net2,filter=frangi"),
    "aep_only": _aep("ensemble=stacked"),  # AEP without AWEL: the members' maps stacked
    "aep_awel_fixed": _aep("ensemble=fixed"),
    "aep_awel": _aep("ensemble=learned"),
    **{
        f"aep_filter_{source}": _aep(f"source={source}")
        for source in ("output", "softmax", "argmax")
    },
    **{f"aep_x{count}": _aep(f"multiplier={count}") for count in range(1, 6)},
    "m1": MethodConfig("configs/blood_cell.py:mask=grey"),
    "m2": MethodConfig("configs/blood_cell.py:mask=binary"),
}


def config_string(
    method: str, arguments: str, dataset: str, degrade: str, fold: int, seed: int, recipe: str
) -> str:
    """`configs/x.py:key=value,...` of one run of a method.

    arguments: those of the table's protocol; recipe: paper | modern.
    """
    text = METHODS[method].config
    if recipe == "modern" and not text.startswith("configs/blood_cell.py"):
        text = re.sub(r",recipe=\w+", "", text) + ",recipe=modern"
    more = [f"dataset={dataset}", arguments, degrade and f"degrade={degrade}"]
    return ",".join([text, *filter(None, more), f"fold={fold}", f"seed={seed}"])
