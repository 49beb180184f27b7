"""The table of a run, and the scores of label folders made by any tool."""

import csv
import json

import numpy as np
import pytest
import tifffile

from feedseg.evaluation.folders import evaluate_folders
from feedseg.evaluation.pair_files import pair_files, plain_name
from feedseg.evaluation.tables import console_table
from feedseg.inference.outputs import channel_maps
from feedseg.io.writers import imagej
from feedseg.runtime.errors import UserError

NAMES = ("interior", "membrane")
COLORS = ((0, 0, 0), (255, 255, 255))
TRUTH = np.array([[0, 0, 1, 0], [0, 255, 1, 0]], np.uint8)
GUESS = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.uint8)
# truth in rows: interior 4 right and 1 wrong, membrane 1 wrong and 1 right
IOU = (4 / 6, 1 / 3)


def put(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.asarray(labels, np.uint8), photometric="minisblack")
    return path


@pytest.fixture
def folders(tmp_path):
    for name, labels in (("b", TRUTH), ("a", GUESS)):
        put(tmp_path / "truth" / f"{name}.tif", labels)
    put(tmp_path / "pred" / "a_labels.tif", GUESS)
    put(tmp_path / "pred" / "b_pred.tif", GUESS)
    return tmp_path / "pred", tmp_path / "truth"


def two_cells(thickness, size=24):
    page = np.zeros((size, size), np.uint8)
    page[:, 12 : 12 + thickness] = 1
    return page


# --- the table of one run


def test_console_table_is_aligned_and_states_the_rule():
    scores = {
        "miou": 0.755,
        "mdice": 0.8,
        "accuracy": 0.9,
        "iou/interior": 0.929,
        "iou/membrane": 0.5,
    }
    table = console_table(scores | {"dice/interior": float("nan")}, NAMES).splitlines()
    assert table[0].split() == ["class", "IoU,", "%", "Dice,", "%"]
    assert table[2].split() == ["interior", "92.9", "-"]
    assert table[5].split() == ["mean", "75.5", "80.0"]
    assert len({len(line) for line in table[:6]}) == 1
    assert "left out of the mean" in table[-1]


# --- scores of folders


def test_scores_by_hand(folders, tmp_path, capsys):
    result = evaluate_folders(*folders, class_names=NAMES, output=tmp_path / "out")
    assert result["confusion"] == [[10, 1], [1, 3]]  # a is predicted without a mistake
    assert result["dataset"]["iou/interior"] == pytest.approx(10 / 12)
    assert result["dataset"]["iou/membrane"] == pytest.approx(3 / 5)
    assert result["dataset"]["accuracy"] == pytest.approx(13 / 15)
    assert result["per_image"]["miou"] == pytest.approx((1 + np.mean(IOU)) / 2)
    assert result["boundary"] == {}
    shown = capsys.readouterr().out
    assert "interior" in shown and "left out of the mean" in shown and "2 images" in shown
    stored = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert stored["dataset"]["miou"] == result["dataset"]["miou"]
    with (tmp_path / "out" / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image"], row["page"], row["pixels"]) for row in rows] == [
        ("a", "1", "8"),
        ("b", "1", "7"),
    ]
    assert float(rows[1]["iou/membrane"]) == pytest.approx(IOU[1])


def test_classes_are_counted_where_they_are_not_given(folders):
    assert evaluate_folders(*folders)["class_names"] == ["class 0", "class 1"]
    result = evaluate_folders(*folders, num_classes=3)
    assert np.isnan(result["dataset"]["iou/class 2"])
    assert result["dataset"]["miou"] == pytest.approx((10 / 12 + 3 / 5) / 2)


def test_absent_class_is_empty_in_the_csv(folders, tmp_path):
    evaluate_folders(*folders, num_classes=3, output=tmp_path / "out")
    assert "nan" not in (tmp_path / "out" / "scores.csv").read_text()
    assert (
        json.loads((tmp_path / "out" / "scores.json").read_text())["dataset"]["iou/class 2"] is None
    )


def test_pages_of_a_stack_are_images(tmp_path):
    put(tmp_path / "p" / "s.tif", np.stack([TRUTH * (TRUTH < 9), GUESS, GUESS]))
    put(tmp_path / "t" / "s_masks.tif", np.stack([TRUTH, TRUTH, GUESS]))
    result = evaluate_folders(tmp_path / "p", tmp_path / "t")
    assert [row["page"] for row in result["images"]] == [1, 2, 3]
    assert [row["miou"] for row in result["images"]] == pytest.approx([1, np.mean(IOU), 1])


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    result = evaluate_folders(put(tmp_path / "x.tif", GUESS), put(tmp_path / "y.tif", TRUTH))
    assert result["dataset"]["miou"] == pytest.approx(np.mean(IOU))


@pytest.mark.parametrize("membrane", ["membrane", 1, "1"])
def test_cells_are_compared_when_a_membrane_is_named(tmp_path, membrane, capsys):
    put(tmp_path / "t" / "a.tif", two_cells(1))
    put(tmp_path / "t" / "b.tif", two_cells(1))
    put(tmp_path / "p" / "a.tif", two_cells(5))  # thick but closed
    put(tmp_path / "p" / "b.tif", np.zeros((24, 24)))  # no membrane at all
    result = evaluate_folders(tmp_path / "p", tmp_path / "t", class_names=NAMES, membrane=membrane)
    scores, rows = result["boundary"], result["images"]
    # the line between the thick border's cells may run a pixel beside the truth's
    assert rows[0]["v_rand"] == pytest.approx(1, abs=0.2) and rows[0]["v_rand"] > 0.8
    t = np.array([12, 11]) / 23
    assert rows[1]["v_rand"] == pytest.approx(2 * np.sum(t**2) / (1 + np.sum(t**2)))
    assert rows[1]["v_info"] == 0
    assert rows[1]["vi_merges"] == pytest.approx(-np.sum(t * np.log2(t)))
    assert scores["vi_merges"] == pytest.approx(np.mean([row["vi_merges"] for row in rows]))
    assert scores["v_rand"] == pytest.approx(np.mean([row["v_rand"] for row in rows]))
    assert "V_rand" in capsys.readouterr().out


@pytest.mark.parametrize("kind", channel_maps.TYPES)
def test_probabilities_beside_the_labels_are_swept(tmp_path, capsys, kind):
    put(tmp_path / "t" / "a.tif", two_cells(3))
    put(tmp_path / "p" / "a_labels.tif", np.zeros((24, 24)))
    soft = 0.35 * two_cells(3)[None].astype(np.float32)
    maps = channel_maps.encoded(np.stack([1 - soft, soft], -1), kind)
    path = tmp_path / "p" / "a_probabilities.tif"
    imagej.write_probabilities(path, maps, NAMES, dtype=kind)
    folders = tmp_path / "p", tmp_path / "t"
    scores = evaluate_folders(*folders, class_names=NAMES, membrane="membrane")["boundary"]
    assert (scores["v_rand"], scores["v_rand_threshold"]) == (1, 0.7)
    assert "best threshold" in capsys.readouterr().out
    imagej.write_probabilities(path, soft[..., None], NAMES[:1])
    with pytest.raises(UserError, match="a_probabilities"):
        evaluate_folders(*folders, class_names=NAMES, membrane="membrane")


def test_uncertainty_beside_the_labels_is_no_label(tmp_path):
    """What `predict --uncertainty` writes can be evaluated as it is."""
    for folder in ("p", "t"):
        put(tmp_path / folder / "a_labels.tif", GUESS)
    spread = np.zeros((1, *GUESS.shape, 1), np.float32)
    imagej.write_probabilities(tmp_path / "p" / "a_uncertainty.tif", spread, ("bits",))
    assert evaluate_folders(tmp_path / "p", tmp_path / "t")["dataset"]["miou"] == 1


# --- mistakes


def test_files_without_partner_are_listed(folders):
    pred, truth = folders
    put(pred / "c.tif", GUESS)
    put(truth / "d.tif", GUESS)
    with pytest.raises(
        UserError, match=r"c\.tif without truth.*d\.tif without prediction"
    ) as error:
        evaluate_folders(pred, truth)
    assert "\n" not in str(error.value)


def test_pairs_go_by_name_and_not_by_order(folders):
    assert [(p.predicted.stem, p.truth.stem) for p in pair_files(*folders)] == [
        ("a_labels", "a"),
        ("b_pred", "b"),
    ]
    assert plain_name(folders[0] / "x_pred_labels.png") == "x"
    assert plain_name(folders[0] / "_labels.png") == "_labels"


def test_two_files_of_one_name_are_refused(folders):
    put(folders[0] / "a.tif", GUESS)
    with pytest.raises(UserError, match="both have name 'a'"):
        evaluate_folders(*folders)


def test_other_size_is_named(folders):
    put(folders[0] / "b_pred.tif", GUESS[:, :3])
    with pytest.raises(UserError, match=r"b_pred\.tif: 2x3 px.*truth.*b\.tif is 2x4"):
        evaluate_folders(*folders)


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("pred/b_pred.tif", 2, r"b_pred\.tif: label values 2; expected class ids 0 to 1"),
        ("pred/b_pred.tif", 255, r"b_pred\.tif: label values 255.*0/255 mask"),
        ("truth/b.tif", 7, r"b\.tif: label values 7; .* \(or 255"),
    ],
)
def test_ids_out_of_range_are_named(folders, file, value, message):
    put(folders[0].parent / file, np.where(GUESS == 1, value, GUESS))
    with pytest.raises(UserError, match=message):
        evaluate_folders(*folders, class_names=NAMES)


def test_masks_of_0_and_255_are_refused(tmp_path):
    put(tmp_path / "t" / "a.tif", 255 * GUESS)
    put(tmp_path / "p" / "a.tif", GUESS)
    with pytest.raises(UserError, match="a mask instead of class ids"):
        evaluate_folders(tmp_path / "p", tmp_path / "t", class_names=NAMES)


def test_nothing_labeled_is_refused(tmp_path):
    put(tmp_path / "t" / "a.tif", np.full((4, 4), 255))
    put(tmp_path / "p" / "a.tif", np.zeros((4, 4)))
    with pytest.raises(UserError, match="nothing to score"):
        evaluate_folders(tmp_path / "p", tmp_path / "t")


def test_object_numbers_are_refused(tmp_path):
    put(tmp_path / "t" / "a.tif", np.arange(200).reshape(10, 20))
    put(tmp_path / "p" / "a.tif", np.zeros((10, 20)))
    with pytest.raises(UserError, match="instance ids"):
        evaluate_folders(tmp_path / "p", tmp_path / "t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": NAMES, "num_classes": 3}, "2 class names for 3"),
        ({"num_classes": 0}, "num_classes=0"),
        (
            {"class_names": NAMES, "membrane": "wall"},
            "'wall' is unknown; classes: interior, membrane",
        ),
        ({"class_names": NAMES, "membrane": 2}, "membrane class 2"),
        ({"membrane": 5}, "membrane class 5: there are 2 classes"),
        ({"membrane": "-1"}, "membrane class -1"),
    ],
)
def test_options_that_do_not_fit(folders, options, message):
    with pytest.raises(UserError, match=message):
        evaluate_folders(*folders, **options)


def test_output_that_cannot_be_written(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; name a folder"):
        evaluate_folders(*folders, output=tmp_path / "file" / "out")
