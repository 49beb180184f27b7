"""Specifications of values: what is allowed passes, what is not is named with key and limits."""

import math

import pytest

from feedseg.runtime import allowed
from feedseg.runtime.allowed import Choice, Fields, Flag, Listed, Maybe, Number, Table, Text

RATE, SIDES = allowed.above(0), Listed(allowed.whole(1, 9), 2, 2)
WRONG = [
    (RATE, 0, "k=0: above 0"),
    (RATE, math.inf, "k=inf: above 0"),
    (RATE, math.nan, "k=nan: above 0"),
    (RATE, True, "k=True: a number, above 0"),
    (allowed.fraction(), 1.0, "k=1.0: at least 0 and below 1"),
    (allowed.whole(1), 1.5, "k=1.5: a whole number, at least 1"),
    (Number(), "1", "k='1': a number"),
    (SIDES, [1], r"k=[1]: a list of 2, each from 1 to 9"),
    (SIDES, [1, 10], "k[1]=10: from 1 to 9"),
    (Choice(("a", "b")), "c", "k='c': choose a or b"),
    (Choice((1, 2)), True, "k=True: choose 1 or 2"),
    (Text(3), "four", "k='four': a text of 0 to 3 characters"),
    (Flag(), 1, "k=1: true or false"),
    (Table(RATE), {"a\nb": -1}, r"k.a\nb=-1: above 0"),
    (Maybe(RATE), -1, "k=-1: above 0"),
    (Fields({"a": RATE}), {}, "k.a is missing"),
    (Fields({"a": RATE}), [], "k=[]: the entries a"),
    (Fields({}, {"a": RATE}), {"a": -1}, "k.a=-1: above 0"),
]


@pytest.mark.parametrize("spec, value, message", WRONG)
def test_wrong_values_are_named(spec, value, message):
    assert spec.problem(value, "k") == message


def test_right_values_pass():
    whole = Fields({"a": SIDES, "b": Maybe(Text())}, {"c": Flag()})
    assert not whole.problem({"a": (1, 9), "b": None, "unknown": object()})
    assert not RATE.problem(1, "k") and not Table(RATE).problem({"a": 1e-9}, "k")
    assert len(Text(3).problem("x" * 10**6, "k")) < 100
