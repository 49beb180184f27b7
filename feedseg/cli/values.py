"""Option values that several verbs share: comma-separated lists."""

from feedseg.runtime.errors import UserError


def names(text: str) -> tuple[str, ...]:
    """The names of a list such as `a,b,c`; empty ones are left out."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str) -> tuple[int, ...]:
    """The integers of a list such as `0,1,2`. Raises UserError for anything else."""
    try:
        return tuple(map(int, names(text)))
    except ValueError:
        raise UserError(f"{text!r}: expected integers separated by commas") from None
