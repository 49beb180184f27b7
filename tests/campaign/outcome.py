"""What became of one try."""

from typing import NamedTuple

KINDS = ("survived", "refused", "wrong", "skipped")


class Outcome(NamedTuple):
    """kind: survived: the right output came in the end; refused: one line said why not; wrong:
    something was lost, half-written or other than undisturbed; skipped: not possible here.
    text: what was done and what happened.
    """

    kind: str
    text: str = ""


def survived(text: str = "") -> Outcome:
    return Outcome("survived", text)


def refused(text: str = "") -> Outcome:
    return Outcome("refused", text)


def wrong(text: str) -> Outcome:
    return Outcome("wrong", text)


def skipped(text: str) -> Outcome:
    return Outcome("skipped", text)


def judged(problem: str, did: str) -> Outcome:
    """wrong where there is a problem, else survived."""
    return wrong(f"{did}: {problem}") if problem else survived(did)
