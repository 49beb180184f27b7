"""Borders by the boundary F-score; folders of predictions side by side; tables per image."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from feedseg import cli
from feedseg.evaluation import boundary_f, score_text
from feedseg.evaluation.compare import compare_folders
from feedseg.evaluation.folders import evaluate_folders
from feedseg.evaluation.pair_files import pair_files, plain_name
from feedseg.main import guarded
from feedseg.runtime import notes
from feedseg.runtime.errors import UserError

NAMES = ("inside", "line")


def line_at(x, size=16, width=1):
    page = np.zeros((size, size), np.uint8)
    page[:, x : x + width] = 1
    return page


def put(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels, photometric="minisblack")
    return path


# Borders ------------------------------------------------------------------------------------------


def test_a_border_touches_another_class_and_not_the_frame():
    page, void = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    page[:, :2] = True
    assert boundary_f.border(page, void).tolist() == [[False, True, False, False, False]] * 4
    void[1] = True
    found = boundary_f.border(page, void)
    assert found[:, 1].tolist() == [True, False, True, True] and found.sum() == 3
    assert not boundary_f.border(np.ones((4, 5), bool), void).any()


@pytest.mark.parametrize(("shift", "score"), [(0, 1), (2, 1), (3, 0)])
def test_borders_count_within_the_tolerance(shift, score):
    counts = boundary_f.count(line_at(5), line_at(5 + shift), 2, tolerance=2)
    assert boundary_f.boundary_f(counts)[1] == score
    assert counts[1].tolist() == [16 * score, 16, 16 * score, 16]


def test_precision_and_recall_by_hand():
    both = np.maximum(line_at(3), line_at(12))  # a line too many
    counts = boundary_f.count(line_at(3), both, 2, tolerance=1)
    assert counts[1].tolist() == [16, 32, 16, 16]
    assert boundary_f.boundary_f(counts)[1] == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_classes_without_a_border():
    counts = boundary_f.count(line_at(3), np.zeros((16, 16), np.uint8), 3)
    scores = boundary_f.boundary_f(counts)
    assert scores[1] == 0 and np.isnan(scores[2])
    named = boundary_f.named(counts, ("a", "b", "c"))
    assert named["boundary_f"] == pytest.approx((scores[0] + scores[1]) / 2)
    unknown = np.where(line_at(3) == 1, 255, 0).astype(np.uint8)
    assert boundary_f.count(unknown, line_at(3), 2)[1].tolist() == [0, 0, 0, 0]


# Folders ------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Truth of two images; three folders of predictions that are ever better."""
    for name in ("a", "b"):
        put(tmp_path / "truth" / f"{name}.tif", line_at(5, width=3))
        put(tmp_path / "bad" / f"{name}_mask.tif", line_at(6, width=3))
        put(tmp_path / "good" / f"{name}.tif", line_at(5, width=3))
    put(tmp_path / "half" / "a.tif", line_at(5, width=3))
    put(tmp_path / "half" / "b.tif", line_at(6, width=3))
    return [tmp_path / name for name in ("bad", "half", "good")], tmp_path / "truth"


def test_folders_are_compared_with_the_first(folders, tmp_path, capsys):
    results = compare_folders(
        *folders, class_names=NAMES, membrane="line", tolerance=1, output=tmp_path / "out"
    )
    alone = evaluate_folders(folders[0][1], folders[1], class_names=NAMES, tolerance=1)
    assert results["half"]["dataset"] == alone["dataset"]
    line = [result["dataset"]["iou/line"] for result in results.values()]
    assert line == pytest.approx([2 / 4, 5 / 7, 1])
    said = capsys.readouterr().out.splitlines()
    rows = {row.split()[0]: row.split() for row in said if row[:4] in ("bad ", "half", "good")}
    gain = 100 * (results["half"]["dataset"]["miou"] - results["bad"]["dataset"]["miou"])
    assert rows["half"][2:6] == [f"+{gain:.2f}", "1", "of", "2"]
    assert rows["good"][3:6] == ["2", "of", "2"] and rows["bad"][2] != "+0.00"
    assert "V_rand" in said[1] and "ARAND" in said[1] and rows["good"][-4:-2] == ["1.0000"] * 2
    with (tmp_path / "out" / "comparison.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["predictions"] for row in table] == ["bad", "half", "good"]
    assert float(table[1]["gain"]) == pytest.approx(gain / 100)
    assert float(table[2]["boundary_f"]) == 1 and float(table[2]["v_rand"]) == 1
    with (tmp_path / "out" / "scores.csv").open(newline="") as stream:
        images = list(csv.DictReader(stream))
    assert [(row["predictions"], row["image"]) for row in images][2:4] == [
        ("half", "a"),
        ("half", "b"),
    ]
    assert set(json.loads((tmp_path / "out" / "scores.json").read_text())) == set(rows)


def test_all_folders_have_the_same_classes(folders):
    put(folders[0][0] / "a_mask.tif", line_at(6, width=3) * 2)
    results = compare_folders(*folders)
    assert {len(result["class_names"]) for result in results.values()} == {3}


def test_the_command_compares_and_refuses(folders, tmp_path, capsys):
    preds = [str(path) for path in folders[0]]
    common = ("--truth", str(folders[1]), "--classes", "inside,line")
    output = ("--output", str(tmp_path / "out"))
    command = ["evaluate", "--pred", *preds[:2], "--pred", preds[2], *common, *output]
    assert guarded(cli.run, command) == 0
    assert "gain over the first" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.csv").is_file()
    assert guarded(cli.run, ["evaluate", "--pred", preds[0], preds[0], *common]) == 2
    assert "bad: named twice" in capsys.readouterr().err
    assert guarded(cli.run, ["evaluate", "--pred", preds[0], *common, "--tolerance=-1"]) == 2
    assert "tolerance -1.0: must not be negative" in capsys.readouterr().err
    (folders[0][2] / "b.tif").unlink()
    assert guarded(cli.run, ["evaluate", "--pred", *preds, *common]) == 2
    assert f"b.tif without prediction in {preds[2]}" in capsys.readouterr().err


def test_folders_of_one_name_are_told_apart(folders, tmp_path):
    (tmp_path / "x").mkdir()
    other = folders[0][0].rename(tmp_path / "x" / "half")
    assert list(compare_folders([folders[0][1], other], folders[1])) == [
        str(folders[0][1]),
        str(other),
    ]


# Images -------------------------------------------------------------------------------------------


def test_every_image_has_a_line(folders, capsys):
    result = evaluate_folders(folders[0][1], folders[1], class_names=NAMES, membrane="line")
    said = capsys.readouterr().out
    assert "boundary F-score within 2 px, %: mean 100.00; inside 100.00" in said
    rows = [line.split() for line in said.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["a", "b"] and rows[0][1] == rows[0][3] == "100.00"
    assert float(rows[1][3]) == pytest.approx(50.0) and len(rows[1]) == len(rows[0]) == 9
    assert result["images"][1]["boundary_f/line"] == 1


def test_of_many_images_the_worst_are_shown(tmp_path, capsys):
    truth = np.stack([line_at(5, width=3)] * 25)
    pages = truth.copy()
    pages[11] = line_at(6, width=3)
    evaluate_folders(put(tmp_path / "p.tif", pages), put(tmp_path / "t.tif", truth))
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert len(table) == 3 + score_text.MOST_IMAGES and "page 12" in table[2]
    assert table[-1].startswith("5 more images have a higher mean IoU")


# Files of other tools -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("ending", ["_labels", "_mask", "_seg", "_Simple Segmentation", ".ome"])
def test_types_and_names_of_other_tools(tmp_path, dtype, suffix, ending):
    put(tmp_path / "t" / "cell 1.tif", line_at(5))
    (tmp_path / "p").mkdir()
    name = tmp_path / "p" / f"cell 1{ending}{suffix}"
    if suffix == ".png":
        Image.fromarray(line_at(5).astype(dtype)).save(name)
    else:
        tifffile.imwrite(name, line_at(5).astype(dtype))
    result = evaluate_folders(tmp_path / "p", tmp_path / "t")
    assert result["dataset"]["miou"] == 1 and result["images"][0]["image"] == "cell 1"


def test_what_predict_writes_beside_the_labels_is_no_label(tmp_path):
    for name in ("a_labels.tif", "a_instances.tif", "a_uncertainty.tif", "a_overlay.png"):
        put(tmp_path / "p" / name, line_at(5))
    put(tmp_path / "t" / "a.tif", line_at(5))
    (pair,) = pair_files(tmp_path / "p", tmp_path / "t")
    assert pair.predicted.name == "a_labels.tif" and pair.probabilities is None


def test_a_name_is_never_eaten_up(tmp_path):
    assert plain_name(Path("_mask.png")) == "_mask"
    assert plain_name(Path("x_GT_labels.png")) == "x"
    put(tmp_path / "p" / "a.tif", line_at(5))
    put(tmp_path / "p" / "a_gt.tif", line_at(5))
    put(tmp_path / "t" / "a.tif", line_at(5))
    with pytest.raises(UserError, match="both have name 'a'"):
        pair_files(tmp_path / "p", tmp_path / "t")


def test_the_ignored_label_of_a_dataset_json_is_void(tmp_path, capsys):
    """As nnU-Net keeps it: beside the folder of labels, its id the highest."""
    truth, place = tmp_path / "set" / "labelsTr", tmp_path / "set" / "dataset.json"
    both = put(tmp_path / "pred" / "a.tif", line_at(5)).parent, truth
    put(truth / "a.tif", np.maximum(line_at(5), 2 * line_at(9, width=3)))
    assert evaluate_folders(*both)["dataset"]["miou"] < 1
    place.write_text(json.dumps({"labels": {"background": 0, "line": 1, "ignore": 2}}))
    for one in (truth, truth / "a.tif"):
        pred = both[0] if one.is_dir() else both[0] / "a.tif"
        with notes.fresh():
            found = evaluate_folders(pred, one)
        assert found["dataset"]["miou"] == 1 and found["images"][0]["pixels"] == 16 * 13
        assert found["contours"]["boundary_f"] == 1
        assert "dataset.json: label 2 is ignored" in capsys.readouterr().err
    place.write_text(json.dumps({"labels": "*.tif"}))  # of another program
    assert evaluate_folders(*both)["dataset"]["miou"] < 1


def test_sub_folders_are_paired_by_their_names(tmp_path):
    """As `feedseg predict` writes images of equal names."""
    for day in ("day1", "day2"):
        for side, ending in (("pred", "_labels"), ("truth", "")):
            (tmp_path / side / day).mkdir(parents=True)
            label = np.full((8, 8), int(day[-1]) - 1, np.uint8)
            tifffile.imwrite(tmp_path / side / day / f"a{ending}.tif", label)
    pairs = pair_files(tmp_path / "pred", tmp_path / "truth")
    assert [pair.name for pair in pairs] == ["day1/a", "day2/a"]
    assert evaluate_folders(tmp_path / "pred", tmp_path / "truth")["dataset"]["miou"] == 1


def test_label_files_are_read_as_they_mean_it_or_as_stored(tmp_path):
    """A 1-bit mask with 0 as white beside the same classes as ids."""
    ids = np.zeros((16, 16), np.uint8)
    ids[4:9, 3:12] = 1
    other = dict(photometric="miniswhite", software="Scanner", metadata=None)
    tifffile.imwrite(tmp_path / "a.tif", ids == 0, **other)
    tifffile.imwrite(tmp_path / "b.tif", ids)
    for interpret, score in (("auto", 1.0), ("stored", 0.0)):
        both = tmp_path / "a.tif", tmp_path / "b.tif"
        found = evaluate_folders(*both, interpret=interpret)
        assert found["dataset"]["miou"] == score
