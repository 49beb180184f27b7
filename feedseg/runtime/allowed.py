"""What a value may be, said as data: checked, and put into words for messages and help texts.

A specification is one of the classes below; those of lists and objects hold others. Nothing is
converted: a value is allowed as it is, or named with its key and what is allowed there.
"""

import math
import reprlib
from typing import Any, NamedTuple

INFINITY = math.inf


class Number(NamedTuple):
    """A finite number; above, below: whether the limits themselves are not allowed."""

    low: float = -INFINITY
    high: float = INFINITY
    above: bool = False
    below: bool = False
    whole: bool = False

    def words(self) -> str:
        if abs(self.low) < INFINITY > abs(self.high) and not self.above and not self.below:
            return f"from {self.low} to {self.high}"
        low = f"{'above' if self.above else 'at least'} {self.low}"
        high = f"{'below' if self.below else 'at most'} {self.high}"
        limits = (low, self.low > -INFINITY), (high, self.high < INFINITY)
        kind = "a whole number" if self.whole else "a number"
        return " and ".join(text for text, stated in limits if stated) or kind

    def problem(self, value: Any, key: str) -> str:
        kinds = int if self.whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            kind = "a whole number" if self.whole else "a number"
            words = self.words()
            return _wrong(key, value, kind if words == kind else f"{kind}, {words}")
        small = value <= self.low if self.above else value < self.low
        large = value >= self.high if self.below else value > self.high
        finite = abs(value) < INFINITY
        return "" if finite and not small and not large else _wrong(key, value, self.words())


class Choice(NamedTuple):
    """One of several values."""

    values: tuple

    def words(self) -> str:
        *first, last = dict.fromkeys(map(str, self.values))  # 16 and '16' read alike
        return f"choose {', '.join(first)} or {last}" if first else f"choose {last}"

    def problem(self, value: Any, key: str) -> str:
        same = any(value == each and type(value) is type(each) for each in self.values)
        return "" if same else _wrong(key, value, self.words())


class Text(NamedTuple):
    """A text of so many characters."""

    most: int = 100_000
    least: int = 0

    def words(self) -> str:
        return f"a text of {self.least} to {self.most} characters"

    def problem(self, value: Any, key: str) -> str:
        fits = isinstance(value, str) and self.least <= len(value) <= self.most
        return "" if fits else _wrong(key, value, self.words())


class Flag(NamedTuple):
    """True or false."""

    def words(self) -> str:
        return "true or false"

    def problem(self, value: Any, key: str) -> str:
        return "" if isinstance(value, bool) else _wrong(key, value, self.words())


class Anything(NamedTuple):
    """Whatever it is: something else checks it."""

    def words(self) -> str:
        return "any value"

    def problem(self, value: Any, key: str) -> str:
        return ""


class Listed(NamedTuple):
    """A list of so many values of one kind."""

    item: Any
    least: int = 0
    most: int = 1000

    def words(self) -> str:
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"a list of {count}, each {self.item.words()}"

    def problem(self, value: Any, key: str) -> str:
        if not isinstance(value, list | tuple) or not self.least <= len(value) <= self.most:
            return _wrong(key, value, self.words())
        problems = (self.item.problem(each, f"{key}[{i}]") for i, each in enumerate(value))
        return next(filter(None, problems), "")


class Each(NamedTuple):
    """A value of one kind, or a list of them."""

    item: Any

    def words(self) -> str:
        return self.item.words()

    def problem(self, value: Any, key: str) -> str:
        several = isinstance(value, list | tuple)
        return (Listed(self.item, 1) if several else self.item).problem(value, key)


class Table(NamedTuple):
    """Values of one kind under any names."""

    item: Any
    most: int = 1000

    def words(self) -> str:
        return f"at most {self.most} entries, each {self.item.words()}"

    def problem(self, value: Any, key: str) -> str:
        if not isinstance(value, dict) or len(value) > self.most:
            return _wrong(key, value, self.words())
        problems = (self.item.problem(each, _joined(key, name)) for name, each in value.items())
        return next(filter(None, problems), "")


class Fields(NamedTuple):
    """Values under known names; others are passed over."""

    required: dict[str, Any]
    optional: dict[str, Any] = {}

    def words(self) -> str:
        return f"the entries {', '.join(self.required)}"

    def problem(self, value: Any, key: str = "") -> str:
        if not isinstance(value, dict):
            return _wrong(key, value, self.words())
        missing = [name for name in self.required if name not in value]
        if missing:
            return f"{_joined(key, missing[0])} is missing"
        known = {**self.required, **self.optional}
        problems = (
            spec.problem(value[name], _joined(key, name))
            for name, spec in known.items()
            if name in value
        )
        return next(filter(None, problems), "")


class Maybe(NamedTuple):
    """A value of this kind, or none (null)."""

    item: Any

    def words(self) -> str:
        return f"{self.item.words()}, or nothing"

    def problem(self, value: Any, key: str) -> str:
        return "" if value is None else self.item.problem(value, key)


def whole(low: float, high: float = INFINITY) -> Number:
    """A whole number from `low` to `high`."""
    return Number(low, high, whole=True)


def at_least(low: float, high: float = INFINITY) -> Number:
    """A number from `low` to `high`."""
    return Number(low, high)


def above(low: float, high: float = INFINITY) -> Number:
    """A number larger than `low`, at most `high`."""
    return Number(low, high, above=True)


def fraction() -> Number:
    """A number from 0 to below 1."""
    return Number(0, 1, below=True)


def _joined(key: str, name: str) -> str:
    shown = reprlib.repr(name)[1:-1]  # a name may be of any length, on several lines
    return f"{key}.{shown}" if key else shown


def _wrong(key: str, value: Any, words: str) -> str:
    return f"{key}={reprlib.repr(value)}: {words}" if key else f"holds {reprlib.repr(value)}"
