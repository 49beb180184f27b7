"""Which values the arguments of networks (`config.model`) may have, whichever network has them.

An argument that is not listed is of the kind of its default: a text, or true or false. Choices
between readings of a paper are checked where they are made.
"""

from feedseg.runtime.allowed import Choice, Flag, Listed, Text, above, fraction, whole

_WIDTH = whole(1, 2**16)  # channels of a layer
_LEVELS = 12  # of a network

ALLOWED = {
    "block": whole(1, 1024),
    "blocks": Listed(whole(1, 1000), 1, _LEVELS),
    "bn_epsilon": above(0, 1),
    "bn_momentum": fraction(),
    "decoder": Listed(_WIDTH, 1, _LEVELS),
    "dropout": fraction(),
    "filters": Listed(_WIDTH, 1, _LEVELS),
    "gates": whole(1, 2),
    "growth": _WIDTH,
    "keep": above(0, 1),
    "kv_pool": Choice((1, 2, 4)),
    "light_convs": whole(1, 2),
    "multiplier": whole(1, 64),
    "penultimate": Choice(("n_filters", 16, "16")),
    "qk_div": _WIDTH,
    "query_block": whole(1, 2**24),
    "rcl_t": whole(0, 100),
    "rounds": whole(1, 100),
    "shape_stream": Listed(_WIDTH, 1, _LEVELS),
    "skip_channels": _WIDTH,
    "t": whole(0, 100),
    "unroll": whole(0, 100),
    "v_div": _WIDTH,
}


def specification(name: str, default: object):
    """What an argument may be; default: its own."""
    if name == "penultimate" and isinstance(default, int):  # of AEP's network by itself
        return _WIDTH
    if name in ALLOWED:
        known = ALLOWED[name]
        return known._replace(least=0) if default == () else known  # (): as the form has it
    if isinstance(default, bool):
        return Flag()
    if isinstance(default, str):
        return Text(most=100)
    raise TypeError(f"feedseg.models.layers.arguments lacks the limits of {name}")
