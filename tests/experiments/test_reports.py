"""`feedseg report`: methods out of run directories, their tables, figures and tests."""

import csv
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from feedseg import cli
from feedseg.experiments import report
from feedseg.experiments.report import names, significance, tables
from feedseg.experiments.report.collect import collect, renamed
from feedseg.experiments.report.gallery import gallery
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.runtime.tables import mean_and_std
from feedseg.training import train
from tests.support import tiny

MARKUP = "<b>A & B</b>"
CLASSES = ("wall", "inside_100%")
EPOCHS = ({"epoch": 1, "loss": 2.0, "val/miou": 0.2}, {"epoch": 2, "loss": 1.0, "val/miou": 0.4})


def put_run(folder: Path, name: str, miou: float, fold=0, seed=0, result=None, **changes) -> Path:
    """A run of made-up numbers; changes: of the configuration, by dotted key with `__`."""
    config = tiny.get_config(seed=seed, split__fold=fold, **changes)
    config.experiment, config.run_name = "exp", f"tissue-{name}-fold{fold}-seed{seed}"
    scores = {"miou": miou, "mdice": miou + 0.05, "accuracy": 0.9}
    scores |= {f"iou/{CLASSES[0]}": miou - 0.1, f"iou/{CLASSES[1]}": None}
    content = {
        "complete": True,
        "class_names": CLASSES,
        "metrics": {"final": scores, "first": {**scores, "miou": miou / 2}},
        "image_scores": {"miou": [miou, miou + 0.02, None], "mdice": [miou, miou, miou]},
        "parameters": 1234,
        "seconds": 60.0,
        "config_hash": f"c{fold}{seed}",
        "data_hash": "d" * 64,
        "version": "1",
        "jax": "0.10",
        "python": "3.11",
        "device": "2 x some GPU",
        "best": {"epoch": 2},
    }
    place = folder / f"{config.run_name}-{miou}"
    place.mkdir(parents=True)
    (place / "config.json").write_text(config.to_json())
    (place / "result.json").write_text(json.dumps(content | (result or {})))
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EPOCHS))
    return place


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two methods over three folds and two seeds; `big` is better by 1.0 to 1.5 points."""
    root = tmp_path_factory.mktemp("made") / "runs"
    for fold in range(3):
        for seed in range(2):
            small = 0.60 + 0.02 * fold + 0.01 * seed
            put_run(root, "small", small, fold, seed)
            better = small + 0.01 + 0.001 * (fold + 3 * seed)
            put_run(root, "big", better, fold, seed, model__filters=(8,))
    return root


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    """The report of these runs."""
    folder = tmp_path_factory.mktemp("report") / "r"
    rename = {"big": MARKUP}
    report.report([runs], folder, rename=rename, baseline="small", say=list)
    return folder


def rows_of(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# --- methods


def test_runs_of_one_configuration_are_a_method(runs):
    found = collect([runs])
    assert [(m.name, len(m.runs)) for m in found.methods] == [("big", 6), ("small", 6)]
    assert [(r.fold, r.seed) for r in found.methods[0].runs] == [
        (fold, seed) for fold in range(3) for seed in range(2)
    ]
    assert found.warnings == ()
    single = collect([runs], by="run")
    assert [m.name for m in single.methods][:2] == ["big-fold0-seed0", "big-fold0-seed1"]


def test_changed_keys_tell_methods_of_one_name_apart(tmp_path):
    put_run(tmp_path, "unet", 0.6)
    put_run(tmp_path, "unet", 0.7, train__epochs=9)
    assert [m.name for m in collect([tmp_path]).methods] == [
        "unet (train.epochs=3)",
        "unet (train.epochs=9)",
    ]


def test_a_key_that_a_later_version_added_makes_no_other_method(tmp_path):
    put_run(tmp_path, "unet", 0.6)
    old = put_run(tmp_path, "unet", 0.7, seed=1)
    config = json.loads((old / "config.json").read_text())
    del config["data"]["foreground"], config["augment"]["noise_sigma"]
    (old / "config.json").write_text(json.dumps(config))
    found = collect([tmp_path])
    assert [len(m.runs) for m in found.methods] == [2] and not found.warnings


def test_short_names_never_become_empty():
    plain = [{"experiment": "e", "run_name": f"a-{x}fold0-seed3"} for x in ("", "b-")]
    assert names.short_names(plain, ["x", "y"]) == ["a", "a-b"]
    assert names.short_names(plain[:1], ["x"]) == ["e-a"]
    assert names.short_names([plain[0]] * 2, ["x", "y"]) == ["a (x)", "a (y)"]


def test_what_is_left_out_or_not_comparable_is_named(tmp_path):
    put_run(tmp_path, "a", 0.6)
    put_run(tmp_path, "b", 0.7, data__degrade="noise", result={"version": "2"})
    put_run(tmp_path, "c", 0.7, fold=1, model__filters=(8,))
    (put_run(tmp_path, "d", 0.1) / "result.json").unlink()
    (put_run(tmp_path, "e", 0.1) / "result.json").write_text("{")
    put_run(tmp_path, "f", 0.1, result={"complete": False})
    put_run(tmp_path, "g", 0.1, result={"metrics": {}})
    put_run(tmp_path / "again", "a", 0.5)
    text = "\n".join(collect([tmp_path]).warnings)
    assert "not finished: " + str(tmp_path / "tissue-d-fold0-seed0-0.1") in text
    assert "tissue-e-fold0-seed0-0.1/result.json: cannot be read" in text
    assert "not finished: " + str(tmp_path / "tissue-f-fold0-seed0-0.1") in text
    assert "no scores: " + str(tmp_path / "tissue-g-fold0-seed0-0.1" / "result.json") in text
    assert "different test images or truth, not comparable as such: a | b" in text
    assert "different versions of the code: 1, 2" in text
    assert "different folds and seeds; runs: a 1, b 1, c 1" in text
    assert "left out, the same run as" in text
    assert len(collect([tmp_path]).runs) == 3


def test_filters_are_a_method_and_not_other_data(tmp_path):
    """Data hashes differ by what a network sees; the truth and the test images are the same."""
    put_run(tmp_path, "a", 0.6, result={"data_hash": "1"})
    put_run(tmp_path, "b", 0.7, data__filter="median3", result={"data_hash": "2"})
    found = collect([tmp_path])
    assert found.comparable and len(found.methods) == 2
    put_run(tmp_path, "c", 0.7, model__filters=(8,), result={"data_hash": "3"})  # changed images
    assert not collect([tmp_path]).comparable


def test_no_run_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="none: not found"):
        collect([tmp_path / "none"])
    with pytest.raises(UserError, match="name run directories, or folders of them"):
        collect([tmp_path])


def test_a_run_may_be_named_by_its_result_and_counts_once(runs):
    one = next(iter(sorted(runs.iterdir())))
    assert len(collect([one / "result.json", one, runs]).runs) == 12


# --- tables


def test_the_table_by_hand(runs):
    found = collect([runs])
    table = tables.score_table(found, "iou")
    assert table.head == ("method", "runs", "mean IoU", *CLASSES, "parameters", "seconds")
    values = [60, 61, 62, 63, 64, 65]
    small = [cell.text for cell in table.rows[1]]
    wall = f"{np.mean(values) - 10:.2f} ± {np.std(values):.2f}"
    assert small == ["small", "6", "62.50 ± 1.71", wall, "-", "1,234", "60 ± 0"]
    assert [cell.best for cell in table.rows[0]] == [False, False, True, True, False, False, False]
    assert not any(cell.best for cell in table.rows[1])
    dice = tables.score_table(found, "dice")
    assert dice.head[2] == "mean Dice" and dice.rows[1][2].text == "67.50 ± 1.71"


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "-"), ([None, float("nan")], "-"), ([70.126], "70.13"), ([1, 3, None], "2.00 ± 1.00")],
)
def test_mean_and_spread_as_text(values, text):
    assert mean_and_std(values) == text


def test_no_value_is_best_where_test_images_differ(tmp_path):
    put_run(tmp_path, "a", 0.6)
    put_run(tmp_path, "b", 0.7, data__degrade="noise")
    table = tables.score_table(collect([tmp_path]), "iou")
    assert not any(cell.best for row in table.rows for cell in row)


def test_latex_is_escaped():
    cells = tuple(tables.TextCell(text, text[0] == "1") for text in ("a_b&{c}%#$~^\\", "1 ± 2"))
    text = tables.as_latex(tables.TextTable(("m|x", "<p>"), (cells,)), ["50 % _"])
    assert text.splitlines()[0] == "% 50 % _"
    assert r"\begin{tabular}{lr}" in text and "m$|$x & $<$p$>$ \\\\" in text
    assert r"a\_b\&\{c\}\%\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"\textbf{1 {\boldmath$\pm$} 2} \\" in text


# --- paired tests


def test_paired_tests_agree_with_scipy(runs):
    (found,) = significance.over_runs(collect([runs]).methods, "miou")
    expected = np.array([1.0, 1.3, 1.1, 1.4, 1.2, 1.5])
    interval = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert (found.first, found.second, found.pairs) == ("big", "small", 6)
    assert found.difference == pytest.approx(1.25)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_t == found.p_t_holm == pytest.approx(stats.ttest_1samp(expected, 0).pvalue)
    assert found.p_wilcoxon == pytest.approx(2 / 2**6)


def test_images_are_compared_after_the_mean_over_seeds(runs):
    (found,) = significance.over_images(collect([runs]).methods, "miou")
    assert found.pairs == 6  # two images with a score in each of three folds
    assert found.difference == pytest.approx(1.25)
    assert found.p_t is not None and found.p_wilcoxon is not None


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
def test_few_pairs_give_no_number_that_means_nothing(count):
    found = significance.compare("a", "b", np.arange(count) + 1.0)
    assert (found.difference is None) == (count == 0)
    assert (found.low is None) == (found.p_t is None) == (count < 2)
    assert (found.p_wilcoxon is None) == (count < 5)
    alike = significance.compare("a", "b", np.full(count, 0.5))
    assert alike.low is alike.p_t is alike.p_wilcoxon is None


def test_only_runs_on_the_same_images_are_pairs(tmp_path):
    for seed in range(2):
        put_run(tmp_path, "a", 0.6, 0, seed)
        put_run(tmp_path, "b", 0.7, 0, seed + 1, model__filters=(8,))
        put_run(tmp_path, "c", 0.8, 0, seed, data__degrade="noise")
    pairs = {
        (c.first, c.second): c.pairs
        for c in significance.over_runs(collect([tmp_path]).methods, "miou")
    }
    assert pairs == {("a", "b"): 1, ("a", "c"): 0, ("b", "c"): 0}
    report.report([tmp_path], tmp_path / "r", say=list)
    page = (tmp_path / "r" / "index.html").read_text()
    assert "2 pair(s) of methods share no fold and seed" in page
    assert [row["second"] for row in rows_of(tmp_path / "r" / "tests.csv")] == ["b", "b"]


def test_baseline_is_in_every_pair():
    methods = collect([tiny.ROOT / "results" / "isbi2012-15epochs"]).methods
    pairs = [(c.first, c.second) for c in significance.over_runs(methods, "miou", "unet")]
    assert len(pairs) == 5 and {second for _, second in pairs} == {"unet"}


def test_holm_by_hand():
    corrected = significance.holm([0.01, 0.04, None, 0.03, 0.9])
    assert corrected.pop(2) is None
    assert corrected == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert significance.holm([0.6, 0.7]) == [1.0, 1.0]


# --- the folder


class Tags(HTMLParser):
    """Counts what is opened and not closed, and keeps addresses and texts."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.sources, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_command_writes_the_same_bytes_again(runs, made, tmp_path, capsys):
    command = ["report", str(runs), "--output", str(tmp_path / "r"), "--baseline", "small"]
    assert cli.run([*command, "--rename", f"big={MARKUP}"]) == 0
    assert "| small | 6 | 62.50 ± 1.71 |" in capsys.readouterr().out
    wanted = {"table.md", "table.tex", "table.csv", "runs.csv", "tests.csv", "index.html"}
    wanted |= {"curves.png", "curves.pdf", "boxes.png", "boxes.pdf", "provenance.json"}
    assert {path.name for path in made.iterdir()} == wanted
    for name in wanted:
        assert (made / name).read_bytes() == (tmp_path / "r" / name).read_bytes()


def test_the_page_holds_all_of_it_and_escapes(made):
    page = Tags((made / "index.html").read_text())
    assert not page.open
    assert len(page.sources) == 2 and all(s.startswith("data:image/png") for s in page.sources)
    text = "\n".join(page.texts)
    parts = (MARKUP, "62.50 ± 1.71", "+1.25", "2 x some GPU", "d" * 16, "No run has a checkpoint")
    for part in (*parts, "too small", "not independent of its training"):
        assert part in text


def test_provenance_is_in_every_file(made):
    line = "feedseg 1, jax 0.10, python 3.11, device 2 x some GPU"
    for name in ("table.md", "table.tex"):
        text = (made / name).read_text()
        assert line in text and "small: configuration c00 / c01" in text and "d" * 16 in text
    run = rows_of(made / "runs.csv")[0]
    assert (run["config_hash"], run["data_hash"]) == ("c00", "d" * 64)
    assert (run["fold"], run["seed"], run["version"], run["iou/wall"]) == ("0", "0", "1", "51")
    for name in ("curves.png", "boxes.png"):
        assert line in Image.open(made / name).text["Subject"]
    assert b"/CreationDate" not in (made / "curves.pdf").read_bytes()
    record = json.loads((made / "provenance.json").read_text())
    assert len(record["runs"]) == 12 and record["scipy"] and record["options"]["metric"] == "iou"


def test_values_for_spreadsheets(made):
    small = rows_of(made / "table.csv")[1]
    assert (small["method"], small["runs"], small["miou_mean"]) == ("small", "6", "62.5")
    assert float(small["miou_std"]) == pytest.approx(1.70783, abs=1e-4)
    assert small["iou/inside_100%_mean"] == ""
    test = rows_of(made / "tests.csv")
    assert [(row["over"], row["pairs"]) for row in test] == [("runs", "6"), ("images", "6")]


def test_one_run_alone(tmp_path):
    run = put_run(tmp_path, "a", 0.6)
    (run / "metrics.jsonl").unlink()
    report.report([run], tmp_path / "r", say=list)
    text = "\n".join(Tags((tmp_path / "r" / "index.html").read_text()).texts)
    assert "One method only" in text and "no run has recorded epochs" in text
    assert {p.name for p in (tmp_path / "r").iterdir()}.isdisjoint({"tests.csv", "curves.png"})
    assert "| exp-tissue-a | 1 | 60.00 | 50.00 | - |" in (tmp_path / "r" / "table.md").read_text()
    assert rows_of(tmp_path / "r" / "table.csv")[0]["miou_std"] == ""


def test_every_output_is_a_method_of_its_own(runs):
    found = collect([runs], every_output=True)
    assert [m.name for m in found.methods] == ["big", "big: first", "small", "small: first"]
    pairs = significance.over_runs(found.methods, "miou", "small")
    assert [(c.first, c.pairs) for c in pairs] == [
        ("big", 6),
        ("big: first", 6),
        ("small: first", 6),
    ]


def test_only_a_former_report_is_replaced(runs, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "r")
    (folder / "mine.txt").write_text("kept")
    report.report([next(runs.iterdir())], folder, say=list)
    assert not (folder / "tests.csv").exists() and (folder / "mine.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "table.md").write_text("mine")
    with pytest.raises(UserError, match=r"table\.md exists and is not from a report"):
        report.report([runs], other, say=list)
    assert [path.name for path in other.iterdir()] == ["table.md"]
    with pytest.raises(UserError, match="is the directory of a run"):
        report.report([runs], next(runs.iterdir()), say=list)
    with pytest.raises(UserError, match="is a file"):
        report.report([runs], other / "table.md", say=list)


def test_wrong_names_of_methods_list_the_right_ones(runs, tmp_path):
    with pytest.raises(UserError, match="--baseline 'unet': no such method; there are: big, small"):
        report.report([runs], tmp_path / "r", baseline="unet", say=list)
    with pytest.raises(UserError, match="--rename 'unet': no such method; there are: big, small"):
        renamed(collect([runs]), {"unet": "x"})
    with pytest.raises(UserError, match="two methods of one name: small, small"):
        renamed(collect([runs]), {"big": "small"})
    assert not (tmp_path / "r").exists()


# --- the qualitative figure


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two methods with checkpoints, on the same images."""
    root = tmp_path_factory.mktemp("trained")
    for name, filters in (("unet", (4,)), ("deeper", (4, 8))):
        config = tiny.get_config(train__epochs=1, model__filters=filters)
        config.experiment, config.run_name = "exp", f"{name}-fold0-seed0"
        train.run(config, root / name, Log())
    return root


def test_the_gallery_shows_shared_test_images(trained, tmp_path, monkeypatch):
    from feedseg.experiments.report import gallery as module

    drawn = []
    monkeypatch.setattr(module, "_draw", lambda *args: drawn.append(args))
    result = json.loads((trained / "unet" / "result.json").read_text())
    count = result["counts"]["test"]
    shown = gallery(collect([trained]).methods, tmp_path / "g.png", count, {})
    dataset, items, columns, *_ = drawn[0]
    assert list(columns) == ["deeper", "unet"] and len(items) == len(shown.images) == count
    hits = columns["unet"] == dataset.labels[items]
    assert hits.mean() == pytest.approx(result["metrics"]["final"]["accuracy"])
    assert len(result["image_scores"]["miou"]) == count


def test_the_report_has_the_gallery_or_says_why_not(trained, tmp_path):
    report.report([trained], tmp_path / "r", images=1, say=list)
    picture = Image.open(tmp_path / "r" / "gallery.png")
    assert picture.width > 3 * picture.height / 1.5 and "jax" in picture.text["Subject"]
    report.report([trained], tmp_path / "r", images=0, say=list)
    assert not (tmp_path / "r" / "gallery.png").exists()
    assert "--images 0" in (tmp_path / "r" / "index.html").read_text()


def test_a_method_whose_data_changed_is_left_out_of_the_gallery(trained, tmp_path):
    found = collect([trained])
    changed = [m._replace(runs=tuple(_other_data(r) for r in m.runs)) for m in found.methods[:1]]
    shown = gallery([*changed, found.methods[1]], tmp_path / "g.png", 1, {})
    assert "deeper is left out: the data differ from those of the run" in shown.notes
    assert shown.images and (tmp_path / "g.png").exists()


def _other_data(run):
    return replace(run, result={**run.result, "data_hash": "other"})
