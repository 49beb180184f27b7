"""Text from elsewhere - names of files, classes and runs, cards of models - as it may be shown.

One function per kind of output. In all of them a sign that cannot be seen, and that a terminal, a
browser or an editor obeys instead, stands as its code.
"""

import html as _html
import re

# Controls of C0 and C1, ends of lines and paragraphs, changes of the direction of writing, what is
# no character, and halves of surrogate pairs: Python's form of file names that are no UTF-8.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_FORMULA = re.compile(r"(^|[;\t])(?=[=+@＝＋－＠-])")  # ; parts cells where , is the decimal sign
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_MARKUP = re.compile(
    r"[|<>`*\[]|\\(?=[!-/:-@\[-`{-~])|&(?=#|\w+;)|~(?=~)"  # anywhere
    r"|(?<!\w)_|_(?!\w)"  # emphasis; names such as cell_wall stay as they are
)
_BLOCK = re.compile(r"#|[+-](?=\s)|[=-](?=[=-]+$)")  # at the start: headings, lists and rules


def visible(text: object) -> str:
    """One line for a terminal, a figure or a log: `a\\nb`, `\\x1b[31m`, `\\u202egpj.exe`.

    A byte of a file name that is no UTF-8 stands as `\\xff`.
    """
    return _UNSEEN.sub(lambda found: _code(found[0]), str(text))


def visible_lines(text: object) -> str:
    """Text of several lines, each as by `visible`."""
    return "\n".join(map(visible, str(text).split("\n")))


def _code(sign: str) -> str:
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:  # a byte, see os.fsdecode
        number -= 0xDC00
    return _SHORT.get(sign) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def csv(text: str) -> str:
    """A cell of text that no spreadsheet takes for a formula: one gets an apostrophe before it.

    Numbers stay as they are.
    """
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", visible(text))


def markdown(text: object) -> str:
    """A cell or a part of a line of Markdown that shows the text: signs of markup as references."""
    return _MARKUP.sub(_reference, visible(text))


def markdown_line(text: object) -> str:
    """A paragraph or an item of a list in Markdown that shows the text."""
    escaped = markdown(text)
    first = _BLOCK.match(escaped)
    return _reference(first) + escaped[1:] if first else escaped


def _reference(found: re.Match) -> str:
    return f"&#{ord(found[0])};"


def html(text: object) -> str:
    """Text for an element or an attribute of HTML."""
    return _html.escape(visible(text), quote=True)
