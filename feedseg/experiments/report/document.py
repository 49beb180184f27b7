"""An HTML document that is one file, its pictures inside, readable offline."""

import base64
from collections.abc import Sequence
from pathlib import Path

from feedseg.runtime import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72em; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2em 0 .6em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { border-bottom: 1.5px solid #444; } th, td { padding: .25em .8em; text-align: right;
       white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
tr:nth-child(odd) td { background: #f5f6f8; }
.wide { overflow-x: auto; } .note { color: #555; font-size: .92em; margin: .4em 0; }
.warning { background: #fff3d6; border-left: 4px solid #e69f00; padding: .4em .8em; margin: .4em 0;}
img { max-width: 100%; height: auto; }
"""


class HtmlPage:
    """A page that grows section by section; every text is escaped."""

    def __init__(self, title: str):
        self._title = escape.html(title)
        self._parts: list[str] = []

    def section(self, title: str) -> None:
        self._parts.append(f"<h2>{escape.html(title)}</h2>")

    def notes(self, lines: Sequence[str], kind: str = "note") -> None:
        """A line each. kind: `note` | `warning`."""
        self._parts += [f"<p class='{kind}'>{escape.html(line)}</p>" for line in lines]

    def table(self, markup: str) -> None:
        """markup: as from `tables.as_html`."""
        self._parts.append(markup)

    def picture(self, path: Path, description: str) -> None:
        """A PNG file, stored in the page."""
        data = base64.b64encode(path.read_bytes()).decode()
        alt = escape.html(description)
        self._parts.append(f"<img alt='{alt}' src='data:image/png;base64,{data}'>")

    def text(self) -> str:
        """The whole document."""
        return "\n".join(
            [
                "<!doctype html>",
                "<html lang='en'><head><meta charset='utf-8'>",
                "<meta name='viewport' content='width=device-width, initial-scale=1'>",
                f"<title>{self._title}</title><style>{STYLE}</style></head><body>",
                f"<h1>{self._title}</h1>",
                *self._parts,
                "</body></html>\n",
            ]
        )
