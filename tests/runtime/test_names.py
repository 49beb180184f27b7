"""Names of files that are no UTF-8, too long, or written with accents in two forms."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg import cli
from feedseg.datasets.common import pair_list, pairing
from feedseg.io import images
from feedseg.io.writers import formats
from feedseg.runtime.errors import UserError, guarded
from feedseg.runtime.files import LONGEST_NAME, is_file, require_room
from feedseg.runtime.names import one_form, same_name
from tests.support.fake_model import run

LABELS = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
COMPOSED, APART = "caf\u00e9", "cafe\u0301"


def write(path: Path) -> None:
    """Labels in a file of this name; skips where the file system cannot have it."""
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path.with_name("made.tif"), LABELS)
    try:
        path.with_name("made.tif").rename(path)
    except OSError:
        pytest.skip("the file system refuses such a name")


def test_a_name_that_is_no_utf8_is_scored_and_segmented(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.tif")
    for folder in ("pred", "truth", "images"):
        write(tmp_path / folder / name)
    folders = ["--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth")]
    output = tmp_path / "scores"
    assert guarded(cli.run, ["evaluate", *folders, "--output", str(output)]) == 0
    assert r"caf\xe9" in capsys.readouterr().out
    assert r"caf\xe9" in (output / "scores.csv").read_text("utf-8")
    for form in formats.formats():
        (written,) = run(tmp_path / "images", tmp_path / form, form=form)
        assert written.stem.startswith(os.fsdecode(b"caf\xe9_labels"))
    assert images.read_label(written).shape == (1, 8, 8)


def test_a_result_whose_name_is_too_long_is_refused_before_any_work(tmp_path):
    write(tmp_path / "images" / "a.tif")
    write(tmp_path / "images" / f"{'n' * 235}.tif")
    with pytest.raises(UserError, match=r"n\.tif: makes n+\.\.\., whose name is too long by \d+"):
        run(tmp_path / "images", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_to_be_written_has_room(tmp_path):
    room = LONGEST_NAME - len("..4194304-01234567.part")
    require_room(tmp_path / ("n" * room))
    with pytest.raises(UserError, match="the name is too long by 1 bytes"):
        require_room(tmp_path / ("n" * (room + 1)))
    with pytest.raises(UserError, match="too long"):
        require_room(Path("/".join(["folder"] * 1000)))


@pytest.mark.parametrize("letters", [300, 5000])
def test_a_table_that_names_what_no_file_can_be(tmp_path, letters):
    assert not is_file(tmp_path / ("n" * letters))
    table = tmp_path / "pairs.csv"
    table.write_text(f"image,label\n{'n' * letters}.tif,b.tif\n")
    with pytest.raises(UserError, match=r"line 2: image 'n+.* is no file") as refused:
        pair_list.read(table)
    assert len(str(refused.value)) < len(str(table)) + 220


def test_a_system_that_finds_a_name_too_long_is_told_in_one_line(capsys, tmp_path):
    assert guarded((tmp_path / ("n" * 300)).stat) == 2
    assert capsys.readouterr().err.endswith("the name is too long; shorten it\n")


def test_accents_have_two_forms_of_one_name(tmp_path):
    assert one_form(APART) == COMPOSED and same_name(APART.upper()) == same_name(COMPOSED)
    write(tmp_path / "images" / f"{COMPOSED}.tif")
    write(tmp_path / "labels" / f"{APART}.tif")
    (pair,) = pairing.find_pairs(tmp_path).pairs
    assert (pair.image.stem, pair.label.stem) == (COMPOSED, APART)
