"""When two names of files count as the same."""

import unicodedata


def one_form(name: str) -> str:
    """A name with its accents in one form: macOS takes an accent off its letter, others do not."""
    return unicodedata.normalize("NFC", name)


def same_name(name: str) -> str:
    """Equal for names that some file system takes for one: by case or by form of the accents."""
    return one_form(name).lower()
