"""Readers of option values that several verbs share."""

from argparse import ArgumentParser

from feedseg.runtime.errors import UserError


def names(text: str) -> tuple[str, ...]:
    """The parts of a list that is separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas. Raises UserError for anything else."""
    try:
        return tuple(map(int, names(text)))
    except ValueError:
        raise UserError(f"{text!r}: expected integers separated by commas") from None


def at_least_one(option: str, number: int) -> int:
    """The number. Raises UserError naming the option if it is below 1."""
    if number < 1:
        raise UserError(f"{option} {number}: at least 1")
    return number


def add_checkpoint(verb: ArgumentParser) -> None:
    """The option that chooses between the checkpoints of a run."""
    verb.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best",
        help="checkpoint of a run directory: best validation score or newest (best)",
    )  # fmt: skip
