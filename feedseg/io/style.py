"""The style of all figures, and saving them."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedseg.runtime import escape
from feedseg.runtime.files import write_atomically

DPI = 160
_MOST_PX = 20_000  # of a side of a picture: a longer figure has fewer dots per inch, its PDF all
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # whole fonts, as journals want them
    "text.parse_math": False,  # $ in a name is no formula
}


@contextlib.contextmanager
def drawing(
    width: float,
    height: float,
    path: Path,
    layout: str = "constrained",
    also: Sequence[Path] = (),
    metadata: Mapping[str, str | None] | None = None,
):
    """A figure of that size in inches, in the house style, saved to `path` at the end.

    also: further files of it, e.g. a PDF. metadata: kept in every file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        _show_plainly(figure)
        for each in (path, *also):
            _save(figure, Path(each), metadata)


def _show_plainly(figure) -> None:
    """Fonts have no signs for what cannot be seen, and fail on some of it."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        shown = escape.visible_lines(text.get_text())
        if shown != text.get_text():
            text.set_text(shown)


def _save(figure, path: Path, metadata: Mapping[str, str | None] | None) -> None:
    """Replaces the file in one rename; its kind is that of its suffix.

    It is drawn in memory first: writers of pictures hide a disk that is full behind errors of
    their own.
    """
    dpi = min(DPI, _MOST_PX / max(figure.get_size_inches()))
    form = {"format": path.suffix[1:], "dpi": dpi, "bbox_inches": "tight", "pad_inches": 0.06}
    dates = {"CreationDate": None} if path.suffix == ".pdf" else {}  # the same figure, same bytes
    facts = {key: value and escape.visible(value) for key, value in (metadata or {}).items()}
    form["metadata"] = {**facts, **dates}
    drawn = io.BytesIO()
    figure.savefig(drawn, **form)
    write_atomically(path, lambda temporary: temporary.write_bytes(drawn.getbuffer()))
