"""`feedseg reproduce`: protocols, numbers beside the published ones, what is said of less."""

import json

import pytest

from feedseg import cli
from feedseg.experiments import published, reproduce, trials
from feedseg.experiments.reproduce import Choice
from feedseg.runtime.errors import UserError
from tests.support import tiny


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)


def planned(name: str, tmp_path, **choice):
    return reproduce.plan(published.table(name), Choice(**choice), tmp_path)


@pytest.mark.parametrize("name", published.names())
def test_every_table_has_its_runs(name, tmp_path):
    """As many as the paper's folds and seeds; rows that share a run share its directory."""
    cells = planned(name, tmp_path)
    assert {cell.row.key for cell in cells} == {row.key for row in published.table(name).rows}
    for cell in cells:
        assert len(set(cell.trials)) == cell.full
    by_run = {(t.config, t.overrides): t.workdir for c in cells for t in c.trials}
    assert len(set(by_run.values())) == len(by_run)


def test_counts_of_runs(tmp_path):
    assert {cell.full for cell in planned("fba-t1", tmp_path)} == {15}
    assert {cell.full for cell in planned("fbu-t2", tmp_path)} == {8}
    first, second = (
        planned("fba-t4", tmp_path, rows=("feedback_attention_st_first",)),
        planned("fba-t4", tmp_path, rows=("feedback_attention_st",)),
    )
    assert first[0].trials == second[0].trials
    assert (first[0].output, second[0].output) == ("rounds/0", "final")


def test_runs_of_a_row_go_together_and_none_is_made_twice(tmp_path):
    cells = planned("fba-t4", tmp_path, folds=(0, 1))
    every = {trial for cell in cells for trial in cell.trials}
    planned_tasks = reproduce.tasks(cells, 4)
    assert sorted(t for task in planned_tasks for t in task) == sorted(every)
    assert {len(task) for task in planned_tasks} == {4, 2}  # 2 folds, 3 seeds
    for task in planned_tasks:
        assert len({sweep_row(trial) for trial in task}) == 1


def sweep_row(trial) -> str:
    """A configuration without fold and seed."""
    return trial.config.split(",fold=")[0]


def test_changes_have_directories_of_their_own(tmp_path):
    plain, changed = (
        planned("fbu-t1", tmp_path, rows=("unet_fb",), overrides=overrides)[0].trials[0].workdir
        for overrides in ((), ("train.epochs=2",))
    )
    assert plain != changed and changed.name.startswith(plain.name)


def test_some_data_sets_are_chosen_by_name_or_with_their_degradation(tmp_path):
    for chosen, blocks in (
        (("isbi2012-noise",), {("isbi2012", "noise")}),
        (("isbi2012",), {("isbi2012", how) for how in ("noise", "contrast", "blur")}),
    ):
        cells = planned("aep-t4", tmp_path, data=chosen)
        assert {(c.scores.dataset, c.scores.degrade) for c in cells} == blocks


WRONG = [
    (dict(data=("isbi",)), r"fbu-t1 has no data 'isbi'; choose from: sstem"),
    (dict(rows=("unet",)), r"fbu-t1 has no row 'unet'; choose from: unet_fb, ru_net_t2"),
    (dict(folds=(5,)), r"--folds 5: the protocol has 5, counted from 0"),
    (dict(seeds=(1,)), r"--seeds 1: the protocol has 1"),
    (dict(overrides=("train.epohcs=3",)), r"unknown key 'epohcs'"),
]


@pytest.mark.parametrize(("choice", "text"), WRONG)
def test_wrong_choices_are_named(choice, text, tmp_path):
    with pytest.raises(UserError, match=text):
        planned("fbu-t1", tmp_path, **choice)


def test_data_that_are_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDSEG_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no data for 'sstem'"):
        reproduce.available(planned("fbu-t1", tmp_path), print)
    (tmp_path / "irpe").mkdir()
    said = []
    cells = reproduce.available(planned("aep-t5", tmp_path), said.append)
    assert {cell.scores.dataset for cell in cells} == {"irpe"}
    assert said[0].startswith("left out: mouse_liver: no data")


def result(**iou) -> dict:
    scores = {f"iou/{name}": value for name, value in iou.items()}
    scores["miou"] = sum(iou.values()) / len(iou)
    return dict(class_names=list(iou), metrics={"final": scores}, complete=True)


def test_the_table_by_hand(tmp_path):
    choice = Choice(rows=("unet_aep_baseline",), folds=(0, 2), overrides=("train.epochs=3",))
    table = published.table("aep-t4")
    cells = reproduce.plan(table, choice, tmp_path)
    for trial, membrane in zip(cells[0].trials, (0.6, 0.62), strict=True):
        trial.workdir.mkdir(parents=True)
        content = result(background=0.9, membrane=membrane)
        (trial.workdir / "result.json").write_text(json.dumps(content))
    text = reproduce.as_text(table, cells, choice)
    row = next(line for line in text.splitlines() if line.startswith("| U-Net | 2 of 3"))
    paper = cells[0].scores.values["membrane"]
    assert f"61.00 ± 1.00 / {paper[0]:.2f} ± {paper[1]:.2f} / {61 - paper[0]:+.2f}" in row
    assert f"75.50 ± 0.50 / 76.34 ± 0.76 / {75.5 - 76.34:+.2f}" in row
    assert "| U-Net | 0 of 3 | - / " in text  # of contrast and blur nothing was run
    assert (
        "NOT the paper's protocol: rows unet_aep_baseline only; folds 0, 2 only; changed: "
        "train.epochs=3." in text
    )
    misprints = reproduce.as_text(table, reproduce.plan(table, Choice(), tmp_path), Choice())
    assert (
        "Misprint: the average of AEP+AWEL on isbi2012 noise; the classes give 77.50" in misprints
    )
    assert "NOT the paper's" not in misprints


def test_a_table_from_its_runs_to_its_files(tmp_path, monkeypatch, capsys):
    """Made, printed and stored; the second call makes nothing."""
    scores = published.Scores("synthetic", "", "iou", {"membrane": (70.0, None)}, "")
    rows = (published.TableRow("unet_fb", "U-Net", (scores,)),)
    table = published.PublishedTable(
        "fbu-x",
        "A paper",
        9,
        "A caption",
        "2 folds",
        {"synthetic": 2},
        1,
        "split=sections",
        1,
        (),
        rows,
    )
    monkeypatch.setattr(published, "table", lambda name: table)
    small = (
        "train.epochs=1",
        "train.batch_size=2",
        "model.filters=(2,)",
        "data.synthetic_count=9",
        "data.synthetic_size=16",
        "data.crop_size=16",
    )
    command = ["reproduce", "fbu-x", "--root", str(tmp_path), "--folds", "1"]
    command += [f"--config.{change}" for change in small]
    assert cli.run(command) == 0
    shown = capsys.readouterr().out
    assert "| U-Net | 1 of 2 |" in shown and " / 70.0 / " in shown
    assert (tmp_path / "fbu-x.md").read_text().strip() in shown
    record = json.loads((tmp_path / "fbu-x.json").read_text())
    (run,) = record["runs"].values()
    assert run["config_hash"] and run["data_hash"] and run["device"]
    assert list(record["rows"][0]["ours"]["membrane"]) == record["rows"][0]["ours"]["membrane"]
    plan = tmp_path / "sweep.json"
    assert cli.run([*command, "--plan", str(plan)]) == 0
    ((trial,),) = trials.read_plan(plan)
    assert (trial.workdir / "result.json").exists()
    monkeypatch.setattr(reproduce.sweep.subprocess, "Popen", None)
    assert cli.run(command) == 0  # nothing is started
    assert cli.run([*command, "--collect"]) == 0


def test_the_command_line(capsys):
    with pytest.raises(UserError, match=r"no table 'fbu-t5', did you mean"):
        cli.run(["reproduce", "fbu-t5"])
    with pytest.raises(UserError, match="'0;1': expected integers separated by commas"):
        cli.run(["reproduce", "fbu-t1", "--folds", "0;1"])
    with pytest.raises(SystemExit):
        cli.run(["doctor", "--config.train.epochs=3"])
    assert "unrecognized arguments: --config.train.epochs=3" in capsys.readouterr().err
