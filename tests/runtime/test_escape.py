"""Names from elsewhere do nothing in a terminal, a spreadsheet, Markdown, HTML or a figure."""

import csv
import html
import io
import re
import sys

import pytest

from feedseg import cli
from feedseg.inference import bundled, model_file
from feedseg.io.style import drawing
from feedseg.runtime import console, escape, notes, tables
from feedseg.runtime.errors import UserError, guarded
from feedseg.runtime.logs import Log

CLEAR, TURN = "a\x1b[2J.tif", "a\u202egpj.exe"
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "＝1")
NUMBERS = ("-0.5", "+3", "1e-05", ".5")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (CLEAR, r"a\x1b[2J.tif"),
        (TURN, r"a\u202egpj.exe"),
        ("a\nfeedseg: fine\r\t", r"a\nfeedseg: fine\r\t"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("細胞 é e\u0301 👩‍🔬", "細胞 é e\u0301 👩‍🔬"),
    ],
)
def test_what_cannot_be_seen_stands_as_its_code(name, shown):
    assert escape.visible(name) == shown == escape.visible(escape.visible(name))


def test_nothing_that_is_printed_is_obeyed(capsys, tmp_path):
    def fail():
        raise UserError(f"{CLEAR}\nfeedseg: all is well", "  a hint")

    assert guarded(fail) == 2
    with notes.fresh():
        notes.note("kind", f"{TURN}\n{CLEAR}")
    console.say(f"first {CLEAR}\nsecond")
    log = Log()
    log.keep_in(tmp_path / "log.txt")
    log(f"in {CLEAR}\nsecond")
    with pytest.raises(SystemExit):
        cli.run(["evaluate", "--pred", "a", "--truth", "b", CLEAR])
    out, err = capsys.readouterr()
    assert not OBEYED.search(out + err + (tmp_path / "log.txt").read_text("utf-8"))
    assert err.splitlines()[:3] == [
        r"feedseg: a\x1b[2J.tif\nfeedseg: all is well",
        "  a hint",
        r"feedseg: note: a\u202egpj.exe\na\x1b[2J.tif",
    ]
    assert out.splitlines()[:2] == [r"first a\x1b[2J.tif", "second"]


def test_signs_that_a_stream_cannot_write_stand_as_codes(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    console.say("細 é")
    assert stream.buffer.getvalue().decode("cp1252").strip() == "\\u7d30 é"


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_of_a_csv_file_is_a_formula(name):
    stream = io.StringIO()
    tables.write_csv(stream, ["name", name, "value"], [{"name": name, name: -0.5, "value": -1}])
    head, row = csv.reader(stream.getvalue().splitlines())
    assert head[1] == row[0] == f"'{name}"
    assert row[1:] == ["-0.5", "-1"]


@pytest.mark.parametrize("text", [*NUMBERS, "a=b", "a-b.tif", "day1/a", "a, b"])
def test_other_cells_stay_as_they_are(text):
    assert escape.csv(text) == text


def test_a_formula_behind_a_semicolon_or_a_control_sign_is_none():
    """; parts the cells of a spreadsheet whose decimal sign is a comma."""
    assert escape.csv("a;=1+1") == "a;'=1+1"
    assert not re.match(r"[=+@\t\r-]", escape.csv("\t=1+1"))


@pytest.mark.parametrize(
    "name", ["a|b", "<script>", "`rm`", "a\nb", "[x](y)", "*a*", "\\|", "&lt;"]
)
def test_a_cell_of_markdown_shows_its_text(name):
    lines = tables.markdown(["method"], [[name], [tables.Bold(name)]])
    assert len(lines) == 4 and all(line.count("|") == 2 for line in lines)
    assert not re.search(r"[<`\[*]|\\\|", lines[2])
    assert html.unescape(lines[2][2:-2]) == escape.visible(name)
    assert lines[3] == f"| **{lines[2][2:-2]}** |"


def test_usual_names_are_the_same_in_markdown():
    for name in ("cell_wall", "U-Net 8-128", "- / 3", "76.1 ± 0.2", "https://a.org/b_c?d=1&e=2"):
        assert escape.markdown(name) == name


@pytest.mark.parametrize("text", ["# big", "- item", "---", "==="])
def test_a_paragraph_is_no_heading_list_or_rule(text):
    line = escape.markdown_line(text)
    assert line.startswith("&#") and html.unescape(line) == text


def test_html_is_text_in_attributes_too():
    assert escape.html('\' onload="x"<b>\x1b') == r"&#x27; onload=&quot;x&quot;&lt;b&gt;\x1b"


@pytest.mark.parametrize("name", ["a $b_{ c$", "\udcff\x1b", "a\u202eb"])
def test_a_figure_shows_any_name(name, tmp_path):
    metadata = {"Title": name}
    paths = tmp_path / "a.png", tmp_path / "a.pdf"
    with drawing(2, 2, paths[0], also=paths[1:], metadata=metadata) as figure:
        figure.suptitle(name)
    assert figure.get_suptitle() == escape.visible(name)
    assert all(path.stat().st_size for path in paths)


def test_a_model_card_is_shown_in_lines(monkeypatch):
    described = model_file.read_manifest(bundled.find("sstem"))
    described["card"]["licence"] = f"MIT\nfree {CLEAR}"
    described["facts"]["class_names"][0] = TURN
    text = bundled.card(described)
    assert not OBEYED.search(text) and r"MIT\nfree a\x1b[2J.tif" in text
    monkeypatch.setattr(model_file, "read_manifest", lambda path: described)
    assert not OBEYED.search(bundled.listing())
