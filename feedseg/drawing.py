"""The style of all figures, and saving them."""

import contextlib
import os
from pathlib import Path

from feedseg.errors import SaveFailed

DPI = 160
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
}


@contextlib.contextmanager
def drawing(width: float, height: float, path: Path, layout: str = "constrained"):
    """A figure of that size in inches, in the house style, saved to `path` at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    path = Path(path)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            kind = path.suffix[1:]
            figure.savefig(temporary, dpi=DPI, format=kind, bbox_inches="tight", pad_inches=0.06)
            temporary.replace(path)
        except OSError as error:
            reason = error.strerror or error
            raise SaveFailed(f"cannot write {path}: {reason}; free space or permissions") from error
        finally:
            temporary.unlink(missing_ok=True)
